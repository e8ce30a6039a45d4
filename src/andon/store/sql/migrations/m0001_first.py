"""The first schema."""

from __future__ import annotations

STATEMENTS = (
    """
    CREATE TABLE actors (
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_actors PRIMARY KEY (id),
        CONSTRAINT uq_actors_subject UNIQUE (subject)
    )
    """,
    """
    CREATE TABLE cursors (
        id TEXT NOT NULL,
        seq BIGINT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_cursors PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE edges (
        src TEXT NOT NULL,
        dst TEXT NOT NULL,
        seq BIGINT NOT NULL,
        CONSTRAINT pk_edges PRIMARY KEY (src, dst)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ix_edges_back ON edges (dst, src, seq)",
    """
    CREATE TABLE events (
        seq INTEGER NOT NULL,
        epoch BIGINT NOT NULL,
        prev TEXT NOT NULL,
        hash TEXT NOT NULL,
        kind TEXT NOT NULL,
        actor TEXT NOT NULL,
        subject TEXT NOT NULL,
        at BIGINT NOT NULL,
        inputs TEXT NOT NULL,
        outputs TEXT NOT NULL,
        facts TEXT NOT NULL,
        data_at BIGINT,
        note TEXT,
        v BIGINT NOT NULL,
        CONSTRAINT pk_events PRIMARY KEY (seq),
        CONSTRAINT uq_events_hash UNIQUE (hash)
    )
    """,
    "CREATE INDEX ix_events_kind ON events (kind, seq)",
    "CREATE INDEX ix_events_subject ON events (subject, seq)",
    """
    CREATE TABLE leases (
        name TEXT NOT NULL,
        holder TEXT,
        fence BIGINT NOT NULL,
        beat BIGINT NOT NULL,
        CONSTRAINT pk_leases PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE ledger_head (
        id BIGINT NOT NULL,
        seq BIGINT NOT NULL,
        hash TEXT NOT NULL,
        CONSTRAINT pk_ledger_head PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE personal (
        id TEXT NOT NULL,
        subject TEXT NOT NULL,
        salt TEXT NOT NULL,
        text TEXT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_personal PRIMARY KEY (id)
    )
    """,
    "CREATE INDEX ix_personal_subject ON personal (subject, id)",
    """
    CREATE TABLE schema_version (
        number BIGINT NOT NULL,
        name TEXT NOT NULL,
        applied_at BIGINT NOT NULL,
        CONSTRAINT pk_schema_version PRIMARY KEY (number)
    )
    """,
    """
    CREATE TABLE segments (
        id TEXT NOT NULL,
        boot BIGINT NOT NULL,
        number BIGINT NOT NULL,
        first BIGINT NOT NULL,
        last BIGINT NOT NULL,
        digest TEXT NOT NULL,
        rows BIGINT NOT NULL,
        created_at BIGINT NOT NULL,
        data_from BIGINT,
        data_until BIGINT,
        releases TEXT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_segments PRIMARY KEY (id),
        CONSTRAINT uq_segments_boot_number UNIQUE (boot, number)
    )
    """,
    "CREATE INDEX ix_segments_boot ON segments (boot, first)",
    "CREATE INDEX ix_segments_created_at ON segments (created_at, id)",
    """
    CREATE TABLE workspaces (
        id TEXT NOT NULL,
        name TEXT NOT NULL,
        epoch BIGINT NOT NULL,
        created_at BIGINT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_workspaces PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE dataset_versions (
        id TEXT NOT NULL,
        dataset TEXT NOT NULL,
        number BIGINT NOT NULL,
        manifest TEXT NOT NULL,
        state TEXT NOT NULL,
        rows BIGINT NOT NULL,
        columns BIGINT NOT NULL,
        size_bytes BIGINT NOT NULL,
        stored_bytes BIGINT NOT NULL,
        source TEXT NOT NULL,
        contract TEXT,
        report TEXT,
        actor TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        data_until BIGINT,
        parent TEXT,
        objects TEXT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_dataset_versions PRIMARY KEY (id),
        CONSTRAINT uq_dataset_versions_dataset_manifest UNIQUE (dataset, manifest),
        CONSTRAINT uq_dataset_versions_dataset_number UNIQUE (dataset, number),
        CONSTRAINT fk_dataset_versions_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    "CREATE INDEX ix_dataset_versions_manifest ON dataset_versions (manifest, id)",
    """
    CREATE TABLE feedback (
        id TEXT NOT NULL,
        prediction TEXT NOT NULL,
        label DOUBLE NOT NULL,
        source TEXT NOT NULL,
        actor TEXT NOT NULL,
        received_at BIGINT NOT NULL,
        data_at BIGINT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_feedback PRIMARY KEY (id),
        CONSTRAINT fk_feedback_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    "CREATE INDEX ix_feedback_prediction ON feedback (prediction, received_at, id)",
    "CREATE INDEX ix_feedback_received_at ON feedback (received_at, id)",
    """
    CREATE TABLE lines (
        id TEXT NOT NULL,
        folder TEXT NOT NULL,
        policy TEXT NOT NULL,
        code TEXT NOT NULL,
        actor TEXT NOT NULL,
        changed_at BIGINT NOT NULL,
        watermark BIGINT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_lines PRIMARY KEY (id),
        CONSTRAINT fk_lines_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    """
    CREATE TABLE alerts (
        id TEXT NOT NULL,
        line TEXT NOT NULL,
        monitor TEXT NOT NULL,
        subject TEXT NOT NULL,
        state TEXT NOT NULL,
        summary TEXT NOT NULL,
        evidence TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        data_at BIGINT,
        closed_at BIGINT,
        closed_because TEXT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_alerts PRIMARY KEY (id),
        CONSTRAINT fk_alerts_line FOREIGN KEY(line) REFERENCES lines (id)
    )
    """,
    "CREATE INDEX ix_alerts_line ON alerts (line, state, created_at, id)",
    "CREATE INDEX ix_alerts_state ON alerts (state, created_at, id)",
    """
    CREATE TABLE runs (
        id TEXT NOT NULL,
        line TEXT NOT NULL,
        state TEXT NOT NULL,
        cause TEXT NOT NULL,
        actor TEXT NOT NULL,
        policy TEXT NOT NULL,
        code TEXT NOT NULL,
        created_at BIGINT NOT NULL,
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
        rev BIGINT NOT NULL,
        CONSTRAINT pk_runs PRIMARY KEY (id),
        CONSTRAINT fk_runs_line FOREIGN KEY(line) REFERENCES lines (id),
        CONSTRAINT fk_runs_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    "CREATE INDEX ix_runs_line ON runs (line, created_at, id)",
    "CREATE INDEX ix_runs_state ON runs (state, id)",
    """
    CREATE TABLE latest_metrics (
        run TEXT NOT NULL,
        "key" TEXT NOT NULL,
        step BIGINT NOT NULL,
        at BIGINT NOT NULL,
        nan BOOLEAN NOT NULL,
        value DOUBLE NOT NULL,
        CONSTRAINT pk_latest_metrics PRIMARY KEY (run, "key"),
        CONSTRAINT fk_latest_metrics_run FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    'CREATE INDEX ix_latest_metrics_key ON latest_metrics ("key", value, run)',
    """
    CREATE TABLE metrics (
        run TEXT NOT NULL,
        "key" TEXT NOT NULL,
        step BIGINT NOT NULL,
        at BIGINT NOT NULL,
        nan BOOLEAN NOT NULL,
        value DOUBLE NOT NULL,
        CONSTRAINT pk_metrics PRIMARY KEY (run, "key", step, at, nan, value),
        CONSTRAINT fk_metrics_run FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE model_versions (
        id TEXT NOT NULL,
        model TEXT NOT NULL,
        number BIGINT NOT NULL,
        digest TEXT NOT NULL,
        state TEXT NOT NULL,
        run TEXT NOT NULL,
        dataset_version TEXT NOT NULL,
        profile TEXT NOT NULL,
        actor TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        data_from BIGINT,
        data_until BIGINT,
        rejected_because TEXT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_model_versions PRIMARY KEY (id),
        CONSTRAINT uq_model_versions_model_number UNIQUE (model, number),
        CONSTRAINT fk_model_versions_run FOREIGN KEY(run) REFERENCES runs (id),
        CONSTRAINT fk_model_versions_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    "CREATE INDEX ix_model_versions_dataset_version ON model_versions (dataset_version, id)",
    "CREATE INDEX ix_model_versions_digest ON model_versions (digest, id)",
    "CREATE INDEX ix_model_versions_run ON model_versions (run, id)",
    """
    CREATE TABLE params (
        id TEXT NOT NULL,
        run TEXT NOT NULL,
        "key" TEXT NOT NULL,
        value TEXT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_params PRIMARY KEY (id),
        CONSTRAINT uq_params_run_key UNIQUE (run, "key"),
        CONSTRAINT fk_params_run FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE triggers (
        id TEXT NOT NULL,
        line TEXT NOT NULL,
        kind TEXT NOT NULL,
        "key" TEXT NOT NULL,
        cause TEXT NOT NULL,
        actor TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        data_at BIGINT,
        faults TEXT NOT NULL,
        run TEXT,
        refused TEXT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_triggers PRIMARY KEY (id),
        CONSTRAINT uq_triggers_line_key UNIQUE (line, "key"),
        CONSTRAINT fk_triggers_line FOREIGN KEY(line) REFERENCES lines (id),
        CONSTRAINT fk_triggers_actor FOREIGN KEY(actor) REFERENCES actors (id),
        CONSTRAINT fk_triggers_run FOREIGN KEY(run) REFERENCES runs (id)
    )
    """,
    "CREATE INDEX ix_triggers_line ON triggers (line, created_at, id)",
    "CREATE INDEX ix_triggers_run ON triggers (run, id)",
    """
    CREATE TABLE monitor_windows (
        id TEXT NOT NULL,
        line TEXT NOT NULL,
        monitor TEXT NOT NULL,
        model_version TEXT NOT NULL,
        data_from BIGINT NOT NULL,
        data_until BIGINT NOT NULL,
        rows BIGINT NOT NULL,
        value DOUBLE,
        low DOUBLE,
        high DOUBLE,
        evidence DOUBLE,
        alarm BOOLEAN NOT NULL,
        details TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_monitor_windows PRIMARY KEY (id),
        CONSTRAINT fk_monitor_windows_line FOREIGN KEY(line) REFERENCES lines (id),
        CONSTRAINT fk_monitor_windows_model_version FOREIGN KEY(model_version) REFERENCES model_versions (id)
    )
    """,
    "CREATE INDEX ix_monitor_windows_line ON monitor_windows (line, monitor, data_from, id)",
    """
    CREATE INDEX ix_monitor_windows_model_version ON monitor_windows (model_version, monitor, data_from, id)
    """,
    """
    CREATE TABLE verdicts (
        id TEXT NOT NULL,
        model_version TEXT NOT NULL,
        version_digest TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        policy TEXT NOT NULL,
        passed BOOLEAN NOT NULL,
        evidence TEXT NOT NULL,
        summary TEXT NOT NULL,
        against TEXT,
        created_at BIGINT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_verdicts PRIMARY KEY (id),
        CONSTRAINT fk_verdicts_model_version FOREIGN KEY(model_version) REFERENCES model_versions (id),
        CONSTRAINT fk_verdicts_against FOREIGN KEY(against) REFERENCES model_versions (id)
    )
    """,
    "CREATE INDEX ix_verdicts_model_version ON verdicts (model_version, endpoint, created_at, id)",
    """
    CREATE TABLE releases (
        id TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        line TEXT NOT NULL,
        model TEXT NOT NULL,
        number BIGINT NOT NULL,
        model_version TEXT NOT NULL,
        version_digest TEXT NOT NULL,
        policy TEXT NOT NULL,
        run TEXT NOT NULL,
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
        CONSTRAINT fk_releases_run FOREIGN KEY(run) REFERENCES runs (id),
        CONSTRAINT fk_releases_actor FOREIGN KEY(actor) REFERENCES actors (id),
        CONSTRAINT fk_releases_verdict FOREIGN KEY(verdict) REFERENCES verdicts (id)
    )
    """,
    "CREATE INDEX ix_releases_endpoint ON releases (endpoint, state, created_at, id)",
    "CREATE INDEX ix_releases_changed_at ON releases (endpoint, changed_at, id)",
    "CREATE INDEX ix_releases_line ON releases (line, created_at, id)",
    "CREATE INDEX ix_releases_model_version ON releases (model_version, id)",
    "CREATE INDEX ix_releases_run ON releases (run, id)",
    "CREATE INDEX ix_releases_state ON releases (state, id)",
    """
    CREATE UNIQUE INDEX uq_releases_in_progress ON releases (endpoint)
    WHERE state IN ('requested', 'judging', 'waiting', 'rolling')
    """,
    "CREATE UNIQUE INDEX uq_releases_live ON releases (endpoint) WHERE state = 'live'",
    """
    CREATE TABLE approvals (
        id TEXT NOT NULL,
        release TEXT NOT NULL,
        version_digest TEXT NOT NULL,
        policy TEXT NOT NULL,
        actor TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_approvals PRIMARY KEY (id),
        CONSTRAINT uq_approvals_release_actor_version_digest_policy UNIQUE (release, actor, version_digest, policy),
        CONSTRAINT fk_approvals_release FOREIGN KEY(release) REFERENCES releases (id),
        CONSTRAINT fk_approvals_actor FOREIGN KEY(actor) REFERENCES actors (id)
    )
    """,
    """
    CREATE TABLE rollouts (
        id TEXT NOT NULL,
        release TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        state TEXT NOT NULL,
        steps TEXT NOT NULL,
        step BIGINT NOT NULL,
        created_at BIGINT NOT NULL,
        changed_at BIGINT NOT NULL,
        data_from BIGINT,
        step_from BIGINT,
        paused_from TEXT,
        evidence TEXT,
        because TEXT,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_rollouts PRIMARY KEY (id),
        CONSTRAINT fk_rollouts_release FOREIGN KEY(release) REFERENCES releases (id)
    )
    """,
    "CREATE INDEX ix_rollouts_endpoint ON rollouts (endpoint, state, id)",
    "CREATE INDEX ix_rollouts_release ON rollouts (release, id)",
    "CREATE INDEX ix_rollouts_state ON rollouts (state, id)",
    """
    CREATE TABLE routes (
        id TEXT NOT NULL,
        epoch BIGINT NOT NULL,
        generation BIGINT NOT NULL,
        salt TEXT NOT NULL,
        stable TEXT,
        candidate TEXT,
        previous TEXT,
        weight_percent BIGINT NOT NULL,
        held BOOLEAN NOT NULL,
        adopted TEXT NOT NULL,
        changed_at BIGINT NOT NULL,
        rev BIGINT NOT NULL,
        CONSTRAINT pk_routes PRIMARY KEY (id),
        CONSTRAINT fk_routes_stable FOREIGN KEY(stable) REFERENCES releases (id),
        CONSTRAINT fk_routes_candidate FOREIGN KEY(candidate) REFERENCES releases (id),
        CONSTRAINT fk_routes_previous FOREIGN KEY(previous) REFERENCES releases (id)
    )
    """,
)
