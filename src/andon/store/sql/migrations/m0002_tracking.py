"""Tracking: experiments, logged models, artifacts, registered models; runs and versions that no line made."""

from __future__ import annotations

from andon.store.sql.migrations.step import Only

_HEAD = 200

_NEW_TABLES = (
    """
    CREATE TABLE counters (
        name TEXT NOT NULL,
        value BIGINT NOT NULL,
        CONSTRAINT pk_counters PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE experiments (
        id TEXT NOT NULL,
        number BIGINT NOT NULL,
        name TEXT NOT NULL,
        actor TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        changed_at BIGINT NOT NULL,
        artifact_location TEXT,
        deleted_at BIGINT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_experiments PRIMARY KEY (id),
        CONSTRAINT uq_experiments_number UNIQUE (number),
        CONSTRAINT uq_experiments_name UNIQUE (name),
        CONSTRAINT fk_experiments_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    "CREATE INDEX ix_experiments_changed_at ON experiments (changed_at, id)",
    """
    CREATE TABLE models (
        id TEXT NOT NULL,
        actor TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        changed_at BIGINT NOT NULL,
        description TEXT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_models PRIMARY KEY (id),
        CONSTRAINT fk_models_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    "CREATE INDEX ix_models_changed_at ON models (changed_at, id)",
    """
    CREATE TABLE experiment_tags (
        scope TEXT NOT NULL,
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        head TEXT NOT NULL,
        tail TEXT,
        rank BIGINT NOT NULL,
        CONSTRAINT pk_experiment_tags PRIMARY KEY (owner, key),
        CONSTRAINT fk_experiment_tags_owner FOREIGN KEY(owner) REFERENCES experiments (id) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ix_experiment_tags_value ON experiment_tags (scope, key, head, rank, owner)",
    """
    CREATE TABLE model_tags (
        scope TEXT NOT NULL,
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        head TEXT NOT NULL,
        tail TEXT,
        rank BIGINT NOT NULL,
        CONSTRAINT pk_model_tags PRIMARY KEY (owner, key),
        CONSTRAINT fk_model_tags_owner FOREIGN KEY(owner) REFERENCES models (id) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ix_model_tags_value ON model_tags (scope, key, head, rank, owner)",
    """
    CREATE TABLE logged_models (
        id TEXT NOT NULL,
        experiment TEXT NOT NULL,
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        actor TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        changed_at BIGINT NOT NULL,
        run TEXT,
        model_type TEXT,
        state_message TEXT,
        deleted_at BIGINT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_logged_models PRIMARY KEY (id),
        CONSTRAINT fk_logged_models_experiment FOREIGN KEY(experiment) REFERENCES experiments (id),
        CONSTRAINT fk_logged_models_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    "CREATE INDEX ix_logged_models_experiment ON logged_models (experiment, created_at, id)",
    "CREATE INDEX ix_logged_models_run ON logged_models (run, id)",
    """
    CREATE TABLE logged_model_params (
        scope TEXT NOT NULL,
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        head TEXT NOT NULL,
        tail TEXT,
        rank BIGINT NOT NULL,
        CONSTRAINT pk_logged_model_params PRIMARY KEY (owner, key),
        CONSTRAINT fk_logged_model_params_owner FOREIGN KEY(owner) REFERENCES logged_models (id) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ix_logged_model_params_value ON logged_model_params (scope, key, head, rank, owner)",
    """
    CREATE TABLE logged_model_tags (
        scope TEXT NOT NULL,
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        head TEXT NOT NULL,
        tail TEXT,
        rank BIGINT NOT NULL,
        CONSTRAINT pk_logged_model_tags PRIMARY KEY (owner, key),
        CONSTRAINT fk_logged_model_tags_owner FOREIGN KEY(owner) REFERENCES logged_models (id) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ix_logged_model_tags_value ON logged_model_tags (scope, key, head, rank, owner)",
    """
    CREATE TABLE logged_model_metrics (
        scope TEXT NOT NULL,
        owner TEXT NOT NULL,
        run TEXT NOT NULL,
        key TEXT NOT NULL,
        dataset_name TEXT NOT NULL,
        dataset_digest TEXT NOT NULL,
        step BIGINT NOT NULL,
        at_ms BIGINT NOT NULL,
        nan BOOLEAN NOT NULL,
        value DOUBLE NOT NULL,
        rank BIGINT NOT NULL,
        CONSTRAINT pk_logged_model_metrics PRIMARY KEY (owner, run, key, dataset_name, dataset_digest),
        CONSTRAINT fk_logged_model_metrics_owner FOREIGN KEY(owner) REFERENCES logged_models (id) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ix_logged_model_metrics_value ON logged_model_metrics (scope, key, nan, value, rank, owner)",
    """
    CREATE TABLE artifacts (
        id TEXT NOT NULL,
        digest TEXT NOT NULL,
        size_bytes BIGINT NOT NULL,
        actor TEXT NOT NULL,
        changed_at BIGINT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_artifacts PRIMARY KEY (id),
        CONSTRAINT fk_artifacts_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    "CREATE INDEX ix_artifacts_digest ON artifacts (digest, id)",
    """
    CREATE TABLE aliases (
        id TEXT NOT NULL,
        model TEXT NOT NULL,
        alias TEXT NOT NULL,
        number BIGINT NOT NULL,
        actor TEXT NOT NULL,
        changed_at BIGINT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_aliases PRIMARY KEY (id),
        CONSTRAINT uq_aliases_model_alias UNIQUE (model, alias),
        CONSTRAINT fk_aliases_model FOREIGN KEY(model) REFERENCES models (id),
        CONSTRAINT fk_aliases_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    "CREATE INDEX ix_aliases_number ON aliases (model, number, id)",
)

_FIRST_ROWS = (
    """
    INSERT INTO experiments (id, number, name, actor, created_at, changed_at, rev)
    SELECT '0', 0, 'Default', 'act_andon', created_at, created_at, 0 FROM workspaces
    """,
    """
    INSERT INTO experiments (id, number, name, actor, created_at, changed_at, rev)
    SELECT '' || row_number() OVER (ORDER BY id), row_number() OVER (ORDER BY id), id, actor, changed_at, changed_at, 0
    FROM lines WHERE id <> 'Default'
    """,
    """
    INSERT INTO models (id, actor, created_at, changed_at, rev)
    SELECT model, 'act_andon', min(created_at), max(created_at), 0 FROM model_versions GROUP BY model
    """,
    "INSERT INTO counters (name, value) SELECT 'experiment', coalesce(max(number), 0) FROM experiments",
    "INSERT INTO counters (name, value) SELECT 'run', count(*) FROM runs",
)

_SAVED = (
    "CREATE TABLE old_params AS SELECT run, key, value FROM params",
    "CREATE TABLE old_metrics AS SELECT run, key, step, at, nan, value FROM metrics",
    "CREATE TABLE old_latest AS SELECT run, key, step, at, nan, value FROM latest_metrics",
    "DROP TABLE params",
    "DROP TABLE metrics",
    "DROP TABLE latest_metrics",
)

_REBUILT = (
    """
    CREATE TABLE runs_next (
        id TEXT NOT NULL,
        number BIGINT NOT NULL,
        experiment TEXT NOT NULL,
        state TEXT NOT NULL,
        cause TEXT NOT NULL,
        actor TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        line TEXT,
        policy TEXT,
        code TEXT,
        name TEXT,
        claimed_user TEXT,
        data_at BIGINT,
        dataset_version TEXT,
        environment TEXT,
        git_commit TEXT,
        git_dirty BOOLEAN,
        seed BIGINT NOT NULL,
        faults TEXT NOT NULL,
        fence BIGINT NOT NULL,
        started_at BIGINT,
        finished_at BIGINT,
        model_version TEXT,
        error TEXT,
        seal TEXT,
        seals BIGINT NOT NULL,
        deleted_at BIGINT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_runs PRIMARY KEY (id),
        CONSTRAINT uq_runs_number UNIQUE (number),
        CONSTRAINT fk_runs_experiment FOREIGN KEY(experiment) REFERENCES experiments (id),
        CONSTRAINT fk_runs_actor FOREIGN KEY(actor) REFERENCES actors (id),
        CONSTRAINT fk_runs_line FOREIGN KEY(line) REFERENCES lines (id)
    )
    """,
    """
    INSERT INTO runs_next (id, line, state, cause, actor, policy, code, created_at, data_at, dataset_version,
        environment, git_commit, git_dirty, seed, faults, fence, started_at, finished_at, model_version,
        error, seal, rev, number, experiment, seals)
    SELECT id, line, state, cause, actor, policy, code, created_at, data_at, dataset_version, environment,
        git_commit, git_dirty, seed, faults, fence, started_at, finished_at, model_version, error, seal, rev,
        row_number() OVER (ORDER BY id), (SELECT e.id FROM experiments e WHERE e.name = runs.line), CASE WHEN
        seal IS NULL THEN 0 ELSE 1 END FROM runs
    """,
    "DROP TABLE runs",
    "ALTER TABLE runs_next RENAME TO runs",
    "CREATE INDEX ix_runs_deleted_at ON runs (deleted_at, id)",
    "CREATE INDEX ix_runs_experiment ON runs (experiment, started_at, id)",
    "CREATE INDEX ix_runs_line ON runs (line, created_at, id)",
    "CREATE INDEX ix_runs_state ON runs (state, id)",
    "CREATE INDEX ix_runs_unsealed ON runs (state, id) WHERE seal IS NULL",
    """
    CREATE TABLE model_versions_next (
        id TEXT NOT NULL,
        model TEXT NOT NULL,
        number BIGINT NOT NULL,
        digest TEXT NOT NULL,
        state TEXT NOT NULL,
        actor TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        run TEXT,
        dataset_version TEXT,
        profile TEXT,
        source TEXT,
        logged_model TEXT,
        held BOOLEAN NOT NULL,
        stage TEXT NOT NULL,
        description TEXT,
        claimed_user TEXT,
        changed_at BIGINT,
        deleted_at BIGINT,
        data_from BIGINT,
        data_until BIGINT,
        rejected_because TEXT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_model_versions PRIMARY KEY (id),
        CONSTRAINT uq_model_versions_model_number UNIQUE (model, number),
        CONSTRAINT fk_model_versions_model FOREIGN KEY(model) REFERENCES models (id),
        CONSTRAINT fk_model_versions_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    """
    INSERT INTO model_versions_next (id, model, number, digest, state, run, dataset_version, profile, actor,
        created_at, data_from, data_until, rejected_because, rev, held, stage)
    SELECT id, model, number, digest, state, run, dataset_version, profile, actor, created_at, data_from,
        data_until, rejected_because, rev, 1, 'None' FROM model_versions
    """,
    "DROP TABLE model_versions",
    "ALTER TABLE model_versions_next RENAME TO model_versions",
    "CREATE INDEX ix_model_versions_changed_at ON model_versions (changed_at, id)",
    "CREATE INDEX ix_model_versions_dataset_version ON model_versions (dataset_version, id)",
    "CREATE INDEX ix_model_versions_digest ON model_versions (digest, id)",
    "CREATE INDEX ix_model_versions_run ON model_versions (run, id)",
    "CREATE INDEX ix_model_versions_stage ON model_versions (model, stage, number, id)",
    """
    CREATE TABLE releases_next (
        id TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        line TEXT NOT NULL,
        model TEXT NOT NULL,
        number BIGINT NOT NULL,
        model_version TEXT NOT NULL,
        version_digest TEXT NOT NULL,
        policy TEXT NOT NULL,
        run TEXT,
        state TEXT NOT NULL,
        strategy TEXT NOT NULL,
        approvals_needed BIGINT NOT NULL,
        cause TEXT NOT NULL,
        actor TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        changed_at BIGINT NOT NULL,
        verdict TEXT,
        previous TEXT,
        because TEXT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_releases PRIMARY KEY (id),
        CONSTRAINT fk_releases_line FOREIGN KEY(line) REFERENCES lines (id),
        CONSTRAINT fk_releases_model_version FOREIGN KEY(model_version) REFERENCES model_versions (id),
        CONSTRAINT fk_releases_actor FOREIGN KEY(actor) REFERENCES actors (id),
        CONSTRAINT fk_releases_verdict FOREIGN KEY(verdict) REFERENCES verdicts (id)
    )
    """,
    """
    INSERT INTO releases_next (id, endpoint, line, model, number, model_version, version_digest, policy, run,
        state, strategy, approvals_needed, cause, actor, created_at, changed_at, verdict, previous, because,
        rev)
    SELECT id, endpoint, line, model, number, model_version, version_digest, policy, run, state, strategy,
        approvals_needed, cause, actor, created_at, changed_at, verdict, previous, because, rev FROM releases
    """,
    "DROP TABLE releases",
    "ALTER TABLE releases_next RENAME TO releases",
    "CREATE INDEX ix_releases_changed_at ON releases (endpoint, changed_at, id)",
    "CREATE INDEX ix_releases_endpoint ON releases (endpoint, state, created_at, id)",
    "CREATE INDEX ix_releases_line ON releases (line, created_at, id)",
    "CREATE INDEX ix_releases_model_version ON releases (model_version, id)",
    "CREATE INDEX ix_releases_run ON releases (run, id)",
    "CREATE INDEX ix_releases_state ON releases (state, id)",
    """
    CREATE UNIQUE INDEX uq_releases_in_progress
        ON releases (endpoint) WHERE state IN ('requested', 'judging', 'waiting', 'rolling')
    """,
    "CREATE UNIQUE INDEX uq_releases_live ON releases (endpoint) WHERE state = 'live'",
)
"""SQLite cannot make a column optional: the table is made anew beside the old one."""

_ALTERED = (
    "ALTER TABLE runs ADD COLUMN number BIGINT",
    "ALTER TABLE runs ADD COLUMN experiment TEXT",
    "ALTER TABLE runs ALTER COLUMN line DROP NOT NULL",
    "ALTER TABLE runs ALTER COLUMN policy DROP NOT NULL",
    "ALTER TABLE runs ALTER COLUMN code DROP NOT NULL",
    "ALTER TABLE runs ADD COLUMN name TEXT",
    "ALTER TABLE runs ADD COLUMN claimed_user TEXT",
    "ALTER TABLE runs ADD COLUMN seals BIGINT",
    "ALTER TABLE runs ADD COLUMN deleted_at BIGINT",
    "ALTER TABLE model_versions ALTER COLUMN run DROP NOT NULL",
    "ALTER TABLE model_versions ALTER COLUMN dataset_version DROP NOT NULL",
    "ALTER TABLE model_versions ALTER COLUMN profile DROP NOT NULL",
    "ALTER TABLE model_versions ADD COLUMN source TEXT",
    "ALTER TABLE model_versions ADD COLUMN logged_model TEXT",
    "ALTER TABLE model_versions ADD COLUMN held BOOLEAN",
    "ALTER TABLE model_versions ADD COLUMN stage TEXT",
    "ALTER TABLE model_versions ADD COLUMN description TEXT",
    "ALTER TABLE model_versions ADD COLUMN claimed_user TEXT",
    "ALTER TABLE model_versions ADD COLUMN changed_at BIGINT",
    "ALTER TABLE model_versions ADD COLUMN deleted_at BIGINT",
    "ALTER TABLE releases ALTER COLUMN run DROP NOT NULL",
    """
    UPDATE runs SET seals = CASE WHEN seal IS NULL THEN 0 ELSE 1 END, number = numbered.number,
        experiment = (SELECT e.id FROM experiments e WHERE e.name = runs.line)
    FROM (SELECT id, row_number() OVER (ORDER BY id) AS number FROM runs) numbered WHERE numbered.id = runs.id
    """,
    "UPDATE model_versions SET held = true, stage = 'None'",
    "ALTER TABLE runs ALTER COLUMN number SET NOT NULL",
    "ALTER TABLE runs ALTER COLUMN experiment SET NOT NULL",
    "ALTER TABLE runs ALTER COLUMN seals SET NOT NULL",
    "ALTER TABLE model_versions ALTER COLUMN held SET NOT NULL",
    "ALTER TABLE model_versions ALTER COLUMN stage SET NOT NULL",
    "ALTER TABLE runs ADD CONSTRAINT uq_runs_number UNIQUE (number)",
    "ALTER TABLE runs ADD CONSTRAINT fk_runs_experiment FOREIGN KEY(experiment) REFERENCES experiments (id)",
    "ALTER TABLE model_versions DROP CONSTRAINT fk_model_versions_run",
    "ALTER TABLE model_versions ADD CONSTRAINT fk_model_versions_model FOREIGN KEY(model) REFERENCES models (id)",
    "ALTER TABLE releases DROP CONSTRAINT fk_releases_run",
    "CREATE INDEX ix_runs_deleted_at ON runs (deleted_at, id)",
    "CREATE INDEX ix_runs_experiment ON runs (experiment, started_at, id)",
    "CREATE INDEX ix_runs_unsealed ON runs (state, id) WHERE seal IS NULL",
    "CREATE INDEX ix_model_versions_changed_at ON model_versions (changed_at, id)",
    "CREATE INDEX ix_model_versions_stage ON model_versions (model, stage, number, id)",
)
"""What was one table stays it, with the references of others to it."""

_AFTER = (
    """
    CREATE TABLE run_inputs (
        id TEXT NOT NULL,
        run TEXT NOT NULL,
        experiment TEXT NOT NULL,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        source_type TEXT NOT NULL,
        source TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        context TEXT,
        schema TEXT,
        profile TEXT,
        tags TEXT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_run_inputs PRIMARY KEY (id),
        CONSTRAINT fk_run_inputs_run FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX ix_run_inputs_context ON run_inputs (experiment, context, run)",
    "CREATE INDEX ix_run_inputs_digest ON run_inputs (experiment, digest, run)",
    "CREATE INDEX ix_run_inputs_name ON run_inputs (experiment, name, run)",
    "CREATE INDEX ix_run_inputs_run ON run_inputs (run, id)",
    """
    CREATE TABLE run_models (
        id TEXT NOT NULL,
        run TEXT NOT NULL,
        model TEXT NOT NULL,
        direction TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        step BIGINT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_run_models PRIMARY KEY (id),
        CONSTRAINT fk_run_models_run FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE,
        CONSTRAINT fk_run_models_model FOREIGN KEY(model) REFERENCES logged_models (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX ix_run_models_model ON run_models (model, id)",
    "CREATE INDEX ix_run_models_run ON run_models (run, id)",
    """
    CREATE TABLE params (
        scope TEXT NOT NULL,
        owner BIGINT NOT NULL,
        key TEXT NOT NULL,
        head TEXT NOT NULL,
        tail TEXT,
        rank BIGINT NOT NULL,
        CONSTRAINT pk_params PRIMARY KEY (owner, key),
        CONSTRAINT fk_params_owner FOREIGN KEY(owner) REFERENCES runs (number) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ix_params_value ON params (scope, key, head, rank, owner)",
    """
    CREATE TABLE run_tags (
        scope TEXT NOT NULL,
        owner BIGINT NOT NULL,
        key TEXT NOT NULL,
        head TEXT NOT NULL,
        tail TEXT,
        rank BIGINT NOT NULL,
        CONSTRAINT pk_run_tags PRIMARY KEY (owner, key),
        CONSTRAINT fk_run_tags_owner FOREIGN KEY(owner) REFERENCES runs (number) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ix_run_tags_value ON run_tags (scope, key, head, rank, owner)",
    """
    CREATE TABLE version_tags (
        scope TEXT NOT NULL,
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        head TEXT NOT NULL,
        tail TEXT,
        rank BIGINT NOT NULL,
        CONSTRAINT pk_version_tags PRIMARY KEY (owner, key),
        CONSTRAINT fk_version_tags_owner FOREIGN KEY(owner) REFERENCES model_versions (id) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ix_version_tags_value ON version_tags (scope, key, head, rank, owner)",
    """
    CREATE TABLE metrics (
        owner BIGINT NOT NULL,
        key TEXT NOT NULL,
        step BIGINT NOT NULL,
        at_ms BIGINT NOT NULL,
        nan BOOLEAN NOT NULL,
        value DOUBLE NOT NULL,
        CONSTRAINT pk_metrics PRIMARY KEY (owner, key, step, at_ms, nan, value),
        CONSTRAINT fk_metrics_owner FOREIGN KEY(owner) REFERENCES runs (number) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE latest_metrics (
        scope TEXT NOT NULL,
        owner BIGINT NOT NULL,
        key TEXT NOT NULL,
        step BIGINT NOT NULL,
        at_ms BIGINT NOT NULL,
        nan BOOLEAN NOT NULL,
        value DOUBLE NOT NULL,
        rank BIGINT NOT NULL,
        CONSTRAINT pk_latest_metrics PRIMARY KEY (owner, key),
        CONSTRAINT fk_latest_metrics_owner FOREIGN KEY(owner) REFERENCES runs (number) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ix_latest_metrics_value ON latest_metrics (scope, key, nan, value, rank, owner)",
    f"""
    INSERT INTO params (scope, owner, key, head, tail, rank)
    SELECT r.experiment, r.number, p.key, substr(p.value, 1, {_HEAD}),
        CASE WHEN length(p.value) > {_HEAD} THEN substr(p.value, {_HEAD} + 1) END,
        -coalesce(r.started_at, r.created_at) / 1000
    FROM old_params p JOIN runs r ON r.id = p.run
    """,
    """
    INSERT INTO metrics (owner, key, step, at_ms, nan, value)
    SELECT DISTINCT r.number, m.key, m.step, m.at / 1000, m.nan, m.value FROM old_metrics m JOIN runs r ON r.id = m.run
    """,
    """
    INSERT INTO latest_metrics (scope, owner, key, step, at_ms, nan, value, rank)
    SELECT r.experiment, r.number, m.key, m.step, m.at / 1000, m.nan, m.value, -coalesce(r.started_at, r.created_at) / 1000
    FROM old_latest m JOIN runs r ON r.id = m.run
    """,
    "DROP TABLE old_params",
    "DROP TABLE old_metrics",
    "DROP TABLE old_latest",
)

STATEMENTS: tuple[str | Only, ...] = (
    *_NEW_TABLES,
    *_FIRST_ROWS,
    *_SAVED,
    *(Only("sqlite", statement) for statement in _REBUILT),
    *(Only("postgresql", statement) for statement in _ALTERED),
    *_AFTER,
)
