"""The registry: models and their versions, stages, aliases, tags, and the addresses that lead to them."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from wire import answer, call, client, experiment, model, refused, run, unique, version

warnings.filterwarnings("ignore", category=FutureWarning)  # stages are what is tried here


def written(text: str) -> str:
    """A run with an artifact folder `model` that holds this text."""
    run_id = run()
    client.log_text(run_id, text, "model/content.txt")
    client.log_text(run_id, "flavors: {}\n", "model/MLmodel")
    return run_id


def content(address: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return (Path(download_artifacts(artifact_uri=address, dst_path=folder)) / "content.txt").read_text()


def stages(name: str) -> dict[str, str]:
    return {str(v.version): v.current_stage for v in client.search_model_versions(f"name = '{name}'")}


def check_a_model_is_made_read_described_and_deleted() -> None:
    name = unique("Mödel with spaces")

    made = client.create_registered_model(name, tags={"team": "fraud"}, description="first")
    found = client.get_registered_model(name)
    client.update_registered_model(name, "second")

    assert (made.name, made.description, made.tags) == (name, "first", {"team": "fraud"})
    assert (found.name, found.description, found.tags) == (name, "first", {"team": "fraud"})
    assert found.creation_timestamp == found.last_updated_timestamp > 0
    assert (list(found.latest_versions), found.aliases) == ([], {})
    assert client.get_registered_model(name).description == "second"
    client.delete_registered_model(name)
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_registered_model(name)


def check_a_name_is_taken_once_and_free_after_deletion() -> None:
    name = model()

    with refused("RESOURCE_ALREADY_EXISTS"):
        client.create_registered_model(name)
    client.delete_registered_model(name)

    assert client.create_registered_model(name).name == name


def check_a_rename_takes_versions_tags_and_aliases_along() -> None:
    old, new, other = model(), unique("renamed"), model()
    version(old)
    client.set_registered_model_alias(old, "champion", "1")
    client.set_registered_model_tag(old, "team", "fraud")

    with refused("RESOURCE_ALREADY_EXISTS"):
        client.rename_registered_model(old, other)
    client.rename_registered_model(old, new)

    assert client.get_model_version_by_alias(new, "champion").name == new
    assert client.get_registered_model(new).tags == {"team": "fraud"}
    assert client.get_model_version(new, "1").name == new
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_registered_model(old)


def check_versions_are_counted_from_one_and_no_number_comes_twice() -> None:
    name = model()

    numbers = [version(name) for _ in range(3)]
    client.delete_model_version(name, "2")
    after = version(name)

    assert (numbers, after) == (["1", "2", "3"], "4")
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_model_version(name, "2")


def check_a_version_is_read_back_whole() -> None:
    name, run_id = model(), run()
    source = f"{client.get_run(run_id).info.artifact_uri}/model"

    made = client.create_model_version(
        name, source, run_id, tags={"a": "1"}, run_link="https://example.org/run", description="d"
    )
    found = client.get_model_version(name, made.version)

    for one in (made, found):
        assert (one.name, str(one.version), one.source, one.run_id) == (name, "1", source, run_id)
        assert (one.tags, one.run_link, one.description) == ({"a": "1"}, "https://example.org/run", "d")
        assert (one.status, one.current_stage, one.aliases) == ("READY", "None", [])
        assert one.creation_timestamp <= one.last_updated_timestamp
    assert client.get_model_version_download_uri(name, "1") == source


def check_a_version_is_described_tagged_and_deleted() -> None:
    name = model()
    number = version(name)

    client.update_model_version(name, number, "new words")
    client.set_model_version_tag(name, number, "validation", "passed")
    client.set_model_version_tag(name, number, "gone", "x")
    client.delete_model_version_tag(name, number, "gone")

    found = client.get_model_version(name, number)
    assert (found.description, found.tags) == ("new words", {"validation": "passed"})
    client.delete_model_version(name, number)
    assert list(client.search_model_versions(f"name = '{name}'")) == []


def check_a_tag_of_a_model_is_set_replaced_and_removed() -> None:
    name = model()

    client.set_registered_model_tag(name, "a", "1")
    client.set_registered_model_tag(name, "a", "2")
    client.set_registered_model_tag(name, "b c", "ü")
    client.delete_registered_model_tag(name, "a")

    assert client.get_registered_model(name).tags == {"b c": "ü"}


def check_stages_are_moved_and_the_old_ones_archived() -> None:
    name = model()
    for _ in range(3):
        version(name)

    moved = client.transition_model_version_stage(name, "1", "Production")
    client.transition_model_version_stage(name, "2", "Staging")
    assert (moved.current_stage, stages(name)) == (
        "Production",
        {"1": "Production", "2": "Staging", "3": "None"},
    )
    client.transition_model_version_stage(name, "2", "Production")
    assert stages(name) == {"1": "Production", "2": "Production", "3": "None"}
    client.transition_model_version_stage(name, "3", "Production", archive_existing_versions=True)
    assert stages(name) == {"1": "Archived", "2": "Archived", "3": "Production"}
    client.transition_model_version_stage(name, "3", "None")
    assert stages(name)["3"] == "None"


def check_stages_are_named_in_any_case_and_no_other_is_known() -> None:
    name = model()
    version(name)

    assert client.transition_model_version_stage(name, "1", "production").current_stage == "Production"
    with refused("INVALID_PARAMETER_VALUE"):
        client.transition_model_version_stage(name, "1", "Live")


def check_the_latest_of_each_stage_is_told() -> None:
    name = model()
    for _ in range(4):
        version(name)
    client.transition_model_version_stage(name, "1", "Production")
    client.transition_model_version_stage(name, "2", "Production")
    client.transition_model_version_stage(name, "3", "Staging")

    def latest(asked: list[str] | None = None) -> dict[str, str]:
        return {v.current_stage: str(v.version) for v in client.get_latest_versions(name, asked)}

    assert latest() == {"Production": "2", "Staging": "3", "None": "4"}
    assert latest(["Production"]) == {"Production": "2"}
    assert latest(["staging", "Archived"]) == {"Staging": "3"}
    assert {
        v.current_stage: str(v.version) for v in client.get_registered_model(name).latest_versions
    } == latest()
    with refused("INVALID_PARAMETER_VALUE"):
        latest(["Live"])


def check_an_alias_is_set_moved_and_deleted() -> None:
    name = model()
    version(name)
    version(name)

    client.set_registered_model_alias(name, "champion", "1")
    client.set_registered_model_alias(name, "Candidate_2-b", "1")
    before = client.get_model_version_by_alias(name, "champion").version
    client.set_registered_model_alias(name, "champion", "2")

    assert (str(before), str(client.get_model_version_by_alias(name, "champion").version)) == ("1", "2")
    assert {k: str(v) for k, v in client.get_registered_model(name).aliases.items()} == {
        "champion": "2",
        "Candidate_2-b": "1",
    }
    assert client.get_model_version(name, "2").aliases == ["champion"]
    client.delete_registered_model_alias(name, "champion")
    with refused("INVALID_PARAMETER_VALUE"):
        client.get_model_version_by_alias(name, "champion")
    assert client.get_model_version(name, "2").aliases == []


def check_a_deleted_version_takes_its_aliases_along() -> None:
    name = model()
    version(name)
    client.set_registered_model_alias(name, "champion", "1")

    client.delete_model_version(name, "1")

    assert client.get_registered_model(name).aliases == {}


def check_an_alias_that_means_something_else_is_refused() -> None:
    name = model()
    version(name)

    for alias in ("latest", "Latest", "v1", "V22", "", "a b", "a/b", "a" * 256):
        try:
            client.set_registered_model_alias(name, alias, "1")
        except MlflowException as error:
            assert error.error_code == "INVALID_PARAMETER_VALUE", (alias, error)
        else:
            raise AssertionError(f"the alias {alias!r} was taken")
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.set_registered_model_alias(name, "champion", "9")


def check_addresses_lead_to_the_files() -> None:
    name = model()
    first, second = written("first"), written("second")
    version(name, first)
    version(name, second)

    client.transition_model_version_stage(name, "1", "Production")
    client.set_registered_model_alias(name, "champion", "2")

    assert content(f"models:/{name}/1") == "first"
    assert content(f"models:/{name}/Production") == "first"
    assert content(f"models:/{name}@champion") == "second"
    assert content(f"models:/{name}/latest") == "second"
    assert content(f"runs:/{first}/model") == "first"
    client.transition_model_version_stage(name, "2", "Production", archive_existing_versions=True)
    assert content(f"models:/{name}/Production") == "second"
    for nowhere in (
        f"models:/{name}/9",
        f"models:/{name}/Staging",
        f"models:/{name}@nobody",
        f"models:/{unique('x')}/1",
    ):
        try:
            content(nowhere)
        except MlflowException:
            continue
        raise AssertionError(f"{nowhere} led somewhere")


def check_register_model_makes_the_model_once() -> None:
    name = unique("registered")
    first, second = written("first"), written("second")

    numbers = [
        str(mlflow.register_model(f"runs:/{run_id}/model", name).version) for run_id in (first, second)
    ]

    assert numbers == ["1", "2"]
    assert client.get_model_version(name, "2").run_id == second
    assert client.get_model_version(name, "1").source.endswith(f"{first}/artifacts/model")


def check_a_logged_model_becomes_a_version() -> None:
    name, made = unique("logged"), client.create_logged_model(experiment(), name="tree")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "content.txt").write_text("tree")
        client.log_model_artifacts(made.model_id, folder)
    client.finalize_logged_model(made.model_id, "READY")

    found = mlflow.register_model(made.model_uri, name)

    assert (str(found.version), found.source) == ("1", made.model_uri)
    assert content(f"models:/{name}/1") == content(f"models:/{made.model_id}") == "tree"
    assert "mlflow.modelVersions" in client.get_logged_model(made.model_id).tags


def check_a_version_of_another_model_can_be_copied() -> None:
    name, target = model(), unique("prod")
    version(name, written("copied"), tags={"a": "1"})

    copy = client.copy_model_version(f"models:/{name}/1", target)

    assert (copy.name, str(copy.version), copy.tags) == (target, "1", {"a": "1"})
    assert content(f"models:/{target}/1") == "copied"


def check_models_are_found_by_name_and_tag() -> None:
    stem = unique("Find")
    for letter, team in (("a", "x"), ("b", "y"), ("c", "x")):
        client.create_registered_model(f"{stem}-{letter}", tags={"team": team, "with space": letter})

    def found(text: str, **more: object) -> str:
        return "".join(m.name[-1] for m in client.search_registered_models(text, **more))

    some = f"name LIKE '{stem}%'"
    assert (found(some), found(f"name = '{stem}-b'"), found(f"name ILIKE '{stem.lower()}-_'")) == (
        "abc",
        "b",
        "abc",
    )
    assert (found(f"{some} AND tags.team = 'x'"), found(f"{some} and tag.team != 'x'")) == ("ac", "b")
    assert (found(f"{some} AND tags.`with space` = 'b'"), found(f"{some} AND tags.team LIKE 'Y'")) == (
        "b",
        "",
    )
    assert found(f"{some} AND tags.team = 'x' AND tags.`with space` = 'c'") == "c"
    assert (found(some, order_by=["name DESC"]), found(some, order_by=["name ASC"])) == ("cba", "abc")
    client.update_registered_model(f"{stem}-b", "touched")
    assert found(some, order_by=["last_updated_timestamp DESC"])[0] == "b"
    first = client.search_registered_models(some, max_results=2)
    second = client.search_registered_models(some, max_results=2, page_token=first.token)
    assert ([m.name[-1] for m in first], [m.name[-1] for m in second]) == (["a", "b"], ["c"])
    assert not second.token
    assert dict(first[0].tags) == {"team": "x", "with space": "a"}
    for bad in (
        "colour = 'x'",
        "name > 'x'",
        "name = x",
        "nonsense",
        "tags.team > 'x'",
        "name = 'a' OR name = 'b'",
    ):
        with refused("INVALID_PARAMETER_VALUE"):
            found(bad)
    for order in (["colour"], ["name UP"], ["name DESC, name ASC"]):
        with refused("INVALID_PARAMETER_VALUE"):
            found("", order_by=order)


def check_versions_are_found_by_everything_they_carry() -> None:
    stem = unique("Ver")
    one, two = f"{stem}-one", f"{stem}-two"
    client.create_registered_model(one)
    client.create_registered_model(two)
    first, second, third = run(), run(), run()
    version(one, first, tags={"team": "x"})
    version(one, second, tags={"team": "y", "with space": "1"})
    version(two, third, tags={"team": "x"})
    source = client.get_model_version(one, "2").source

    def found(text: str, **more: object) -> str:
        page = client.search_model_versions(text, **more)
        return " ".join(f"{v.name[-3:]}{v.version}" for v in page)

    def some(text: str) -> set[str]:
        return set(found(f"name LIKE '{stem}%' AND {text}").split())

    assert set(found(f"name = '{one}'").split()) == {"one1", "one2"}
    assert set(found(f"name ILIKE '{stem.lower()}%'").split()) == {"one1", "one2", "two1"}
    assert set(found(f"run_id = '{second}'").split()) == {"one2"}
    assert set(found(f"run_id IN ('{first}', '{third}')").split()) == {"one1", "two1"}
    assert set(found(f"source_path = '{source}'").split()) == {"one2"}
    assert some("tags.team = 'x'") == {"one1", "two1"}
    assert some("tags.team != 'x'") == {"one2"}
    assert some("tags.team LIKE 'x' AND tag.team ILIKE 'X'") == {"one1", "two1"}
    assert some("tags.`with space` = '1'") == {"one2"}
    assert some("version_number = 1") == {"one1", "two1"}
    assert some("version_number > 1") == {"one2"}
    assert found(f"name = '{one}'", order_by=["version_number ASC"]) == "one1 one2"
    assert found(f"name = '{one}'", order_by=["version_number DESC"]) == "one2 one1"
    assert found(f"name LIKE '{stem}%'", order_by=["name DESC", "version_number DESC"]) == "two1 one2 one1"
    assert found(f"name LIKE '{stem}%'", order_by=["creation_timestamp ASC"]) == "one1 one2 two1"
    page = client.search_model_versions(f"name LIKE '{stem}%'", max_results=2, order_by=["name ASC"])
    rest = client.search_model_versions(
        f"name LIKE '{stem}%'", max_results=2, order_by=["name ASC"], page_token=page.token
    )
    assert (len(page), len(rest), bool(rest.token)) == (2, 1, False)
    for bad in ("colour = 'x'", "name > 'x'", "nonsense", "version_number = 'x'"):
        with refused("INVALID_PARAMETER_VALUE"):
            found(bad)


def check_what_is_not_there_is_said_so() -> None:
    nobody, name = unique("nobody"), model()

    for read in (
        lambda: client.get_registered_model(nobody),
        lambda: client.update_registered_model(nobody, "x"),
        lambda: client.delete_registered_model(nobody),
        lambda: client.rename_registered_model(nobody, unique("x")),
        lambda: client.set_registered_model_tag(nobody, "a", "b"),
        lambda: version(nobody),
        lambda: client.get_model_version(name, "1"),
        lambda: client.update_model_version(name, "1", "x"),
        lambda: client.delete_model_version(name, "1"),
        lambda: client.set_model_version_tag(name, "1", "a", "b"),
        lambda: client.transition_model_version_stage(name, "1", "Production"),
        lambda: client.get_model_version_download_uri(name, "1"),
        lambda: client.get_latest_versions(nobody),
    ):
        with refused("RESOURCE_DOES_NOT_EXIST"):
            read()


def check_a_version_from_outside_the_store_is_refused() -> None:
    name, run_id = model(), run()

    for source in (
        "/etc", "file:///etc", "../../etc", "mlflow-artifacts:/../../etc", "mlflow-artifacts:/a/%2e%2e/%2e%2e/etc",
        f"{client.get_run(run_id).info.artifact_uri}/../../../etc", "mlflow-artifacts:/a#/../../etc", "file:///etc#/../x",
        f"runs:/{run_id}/../../etc", "mlflow-artifacts:/a/%252e%252e/b", "",
    ):  # fmt: skip
        sent = call("POST", "model-versions/create", {"name": name, "source": source, "run_id": run_id})
        assert (sent.status_code, sent.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), (
            source,
            sent.text,
        )
    assert list(client.search_model_versions(f"name = '{name}'")) == []


def check_names_that_mean_something_else_are_refused() -> None:
    for name in ("", "a/b", "a:b", " "):
        sent = call("POST", "registered-models/create", {"name": name})
        assert (sent.status_code, sent.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), (
            name,
            sent.text,
        )


def check_a_version_is_a_string_and_a_time_a_number_on_the_wire() -> None:
    name = model()
    version(name)

    found = answer("GET", "model-versions/get", {"name": name, "version": "1"})["model_version"]

    assert (found["version"], found["current_stage"], found["status"]) == ("1", "None", "READY")
    assert isinstance(found["creation_timestamp"], int)
