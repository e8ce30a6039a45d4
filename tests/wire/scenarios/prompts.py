"""Prompts, which are registered models with tags: written, versioned, pinned by alias, kept out of the list of models."""

from __future__ import annotations

import mlflow
from wire import client, model, refused, unique

TEXT = "You sell {{ product }}.\nAnswer in {{language}}, with „care“."


def check_a_prompt_is_written_and_loaded() -> None:
    name = unique("greeting")

    made = mlflow.genai.register_prompt(name, TEXT, commit_message="first", tags={"author": "ann"})
    found = mlflow.genai.load_prompt(name, version=1)

    assert (made.version, found.version, found.template) == (1, 1, TEXT)
    assert (found.commit_message, found.tags["author"]) == ("first", "ann")
    assert found.format(product="shoes", language="French").startswith("You sell shoes.")
    assert found.variables == {"product", "language"}
    assert mlflow.genai.load_prompt(f"prompts:/{name}/1").template == TEXT


def check_a_chat_is_a_prompt_too() -> None:
    name = unique("chat")
    chat = [{"role": "system", "content": "Be {{ mood }}."}, {"role": "user", "content": "{{ question }}"}]

    mlflow.genai.register_prompt(name, chat)

    assert mlflow.genai.load_prompt(name, version=1).template == chat


def check_each_text_is_a_version_and_an_alias_pins_one() -> None:
    name = unique("pinned")
    mlflow.genai.register_prompt(name, "one")
    second = mlflow.genai.register_prompt(name, "two")

    mlflow.genai.set_prompt_alias(name, "production", 1)
    pinned = mlflow.genai.load_prompt(f"prompts:/{name}@production")
    mlflow.genai.set_prompt_alias(name, "production", 2)

    assert (second.version, pinned.template) == (2, "one")
    assert mlflow.genai.load_prompt(f"prompts:/{name}@production", cache_ttl_seconds=0).template == "two"
    assert mlflow.genai.load_prompt(f"prompts:/{name}@latest").template == "two"
    mlflow.genai.delete_prompt_alias(name, "production")
    assert (
        mlflow.genai.load_prompt(f"prompts:/{name}@production", allow_missing=True, cache_ttl_seconds=0)
        is None
    )


def check_prompts_are_found_and_are_no_models() -> None:
    name = unique("found")
    mlflow.genai.register_prompt(name, "text", tags={"a": "1"})

    found = mlflow.genai.search_prompts(filter_string=f"name = '{name}'")

    assert [prompt.name for prompt in found] == [name]
    assert list(client.search_registered_models(f"name = '{name}'")) == []


def check_tags_of_prompts_and_their_versions_are_kept() -> None:
    name = unique("tagged")
    mlflow.genai.register_prompt(name, "text")

    mlflow.genai.set_prompt_version_tag(name, 1, "checked", "yes")
    client.set_prompt_tag(name, "team", "sales")

    assert mlflow.genai.load_prompt(name, version=1, cache_ttl_seconds=0).tags["checked"] == "yes"
    assert client.get_prompt(name).tags["team"] == "sales"


def check_a_prompt_and_a_model_share_no_name() -> None:
    name, prompt = model(), unique("prompt")
    mlflow.genai.register_prompt(prompt, "text")

    with refused("INVALID_PARAMETER_VALUE"):
        mlflow.genai.register_prompt(name, "text")
    with refused("RESOURCE_ALREADY_EXISTS"):
        client.create_registered_model(prompt)


def check_a_prompt_is_deleted_version_by_version() -> None:
    name = unique("deleted")
    mlflow.genai.register_prompt(name, "text")

    client.delete_prompt_version(name, "1")
    client.delete_prompt(name)

    assert mlflow.genai.load_prompt(name, version=1, allow_missing=True, cache_ttl_seconds=0) is None
