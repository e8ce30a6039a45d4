BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('f4a9b2c7d1e6');
CREATE TABLE "datasets" (
	dataset_uuid VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(500) NOT NULL, 
	digest VARCHAR(36) NOT NULL, 
	dataset_source_type VARCHAR(36) NOT NULL, 
	dataset_source TEXT NOT NULL, 
	dataset_schema TEXT, 
	dataset_profile TEXT, 
	CONSTRAINT dataset_pk PRIMARY KEY (experiment_id, name, digest), 
	CONSTRAINT fk_datasets_experiment_id_experiments FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE CASCADE
);
INSERT INTO "datasets" VALUES('aca35bbca8bd402f82f6d88a86d886f8',1,'customers','5ba9','http','{"url": "http://data.example/churn.csv"}','{"mlflow_colspec": [{"type": "long", "name": "age", "required": true}]}',NULL);
CREATE TABLE "experiment_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value TEXT, 
	experiment_id INTEGER NOT NULL, 
	CONSTRAINT experiment_tag_pk PRIMARY KEY ("key", experiment_id), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id)
);
INSERT INTO "experiment_tags" VALUES('team','billing',1);
INSERT INTO "experiment_tags" VALUES('note','größe 7',1);
CREATE TABLE "experiments" (
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	artifact_location VARCHAR(256), 
	lifecycle_stage VARCHAR(32), 
	creation_time BIGINT, 
	last_update_time BIGINT, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT experiment_pk PRIMARY KEY (experiment_id), 
	CONSTRAINT experiments_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT uq_experiments_workspace_name UNIQUE (workspace, name)
);
INSERT INTO "experiments" VALUES(0,'Default','/srv/mlflow/mlruns/0','active',1795268471424,1795268471424,'default');
INSERT INTO "experiments" VALUES(1,'churn','file:///srv/mlflow/artifacts/churn','active',1795268471429,1795268471429,'default');
INSERT INTO "experiments" VALUES(2,'kept elsewhere','s3://bucket/models/away','active',1795268471445,1795268471445,'default');
INSERT INTO "experiments" VALUES(3,'given up','file:///srv/mlflow/artifacts/gone','deleted',1795268471454,1795268472071,'default');
CREATE TABLE input_tags (
	input_uuid VARCHAR(36) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	value VARCHAR(500) NOT NULL, 
	CONSTRAINT input_tags_pk PRIMARY KEY (input_uuid, name)
);
INSERT INTO "input_tags" VALUES('e4a37550021b41438b06d6e0253e917c','mlflow.data.context','training');
CREATE TABLE inputs (
	input_uuid VARCHAR(36) NOT NULL, 
	source_type VARCHAR(36) NOT NULL, 
	source_id VARCHAR(36) NOT NULL, 
	destination_type VARCHAR(36) NOT NULL, 
	destination_id VARCHAR(36) NOT NULL, step BIGINT DEFAULT '0' NOT NULL, 
	CONSTRAINT inputs_pk PRIMARY KEY (source_type, source_id, destination_type, destination_id)
);
INSERT INTO "inputs" VALUES('e4a37550021b41438b06d6e0253e917c','DATASET','aca35bbca8bd402f82f6d88a86d886f8','RUN','8cc03ae42bb2415a8929b3d7db479843',0);
INSERT INTO "inputs" VALUES('c7632737bbf84170a7bb3197c7197b6c','RUN_INPUT','8cc03ae42bb2415a8929b3d7db479843','MODEL_INPUT','m-bedd0e5abbc140628a240380568b2dd9',0);
INSERT INTO "inputs" VALUES('4eb8563a9b76422dab7eaf0cf57579e5','RUN_OUTPUT','8cc03ae42bb2415a8929b3d7db479843','MODEL_OUTPUT','m-bedd0e5abbc140628a240380568b2dd9',2);
INSERT INTO "inputs" VALUES('b5c53642f83d4a50b4b80b3a9ceda0bf','RUN_INPUT','1ea18447b03a4b18bf64e59d09f07f16','MODEL_INPUT','m-bedd0e5abbc140628a240380568b2dd9',0);
CREATE TABLE "latest_metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT, 
	step BIGINT NOT NULL, 
	is_nan BOOLEAN NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT latest_metric_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
INSERT INTO "latest_metrics" VALUES('auc',0.9,1795268471706,4,0,'8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "latest_metrics" VALUES('val/loss',1.79769313486231562234e+308,1795268471740,1,0,'8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "latest_metrics" VALUES('floor',-1.79769313486231562234e+308,1795268471746,0,0,'8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "latest_metrics" VALUES('accuracy',0.75,1795268471818,2,0,'8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "latest_metrics" VALUES('auc',0.7,1795268471852,0,0,'1ea18447b03a4b18bf64e59d09f07f16');
INSERT INTO "latest_metrics" VALUES('auc',0.1,1795268471971,0,0,'4bffa9b7d2ab42fda2f4fd229873ee1b');
CREATE TABLE logged_model_metrics (
	model_id VARCHAR(36) NOT NULL, 
	metric_name VARCHAR(500) NOT NULL, 
	metric_timestamp_ms BIGINT NOT NULL, 
	metric_step BIGINT NOT NULL, 
	metric_value FLOAT, 
	experiment_id INTEGER NOT NULL, 
	run_id VARCHAR(32) NOT NULL, 
	dataset_uuid VARCHAR(36), 
	dataset_name VARCHAR(500), 
	dataset_digest VARCHAR(36), 
	CONSTRAINT logged_model_metrics_pk PRIMARY KEY (model_id, metric_name, metric_timestamp_ms, metric_step, run_id), 
	CONSTRAINT fk_logged_model_metrics_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CONSTRAINT fk_logged_model_metrics_model_id FOREIGN KEY(model_id) REFERENCES logged_models (model_id) ON DELETE CASCADE, 
	CONSTRAINT fk_logged_model_metrics_run_id FOREIGN KEY(run_id) REFERENCES runs (run_uuid) ON DELETE CASCADE
);
INSERT INTO "logged_model_metrics" VALUES('m-bedd0e5abbc140628a240380568b2dd9','accuracy',1795268471818,2,0.75,1,'8cc03ae42bb2415a8929b3d7db479843',NULL,'customers','5ba9');
CREATE TABLE logged_model_params (
	model_id VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	param_key VARCHAR(255) NOT NULL, 
	param_value TEXT NOT NULL, 
	CONSTRAINT logged_model_params_pk PRIMARY KEY (model_id, param_key), 
	CONSTRAINT fk_logged_model_params_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CONSTRAINT fk_logged_model_params_model_id FOREIGN KEY(model_id) REFERENCES logged_models (model_id) ON DELETE CASCADE
);
INSERT INTO "logged_model_params" VALUES('m-bedd0e5abbc140628a240380568b2dd9',1,'depth','3');
CREATE TABLE logged_model_tags (
	model_id VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	tag_key VARCHAR(255) NOT NULL, 
	tag_value TEXT NOT NULL, 
	CONSTRAINT logged_model_tags_pk PRIMARY KEY (model_id, tag_key), 
	CONSTRAINT fk_logged_model_tags_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CONSTRAINT fk_logged_model_tags_model_id FOREIGN KEY(model_id) REFERENCES logged_models (model_id) ON DELETE CASCADE
);
INSERT INTO "logged_model_tags" VALUES('m-bedd0e5abbc140628a240380568b2dd9',1,'mlflow.user','root');
INSERT INTO "logged_model_tags" VALUES('m-bedd0e5abbc140628a240380568b2dd9',1,'mlflow.source.name','/srv/mlflow/make.py');
INSERT INTO "logged_model_tags" VALUES('m-bedd0e5abbc140628a240380568b2dd9',1,'mlflow.source.type','LOCAL');
INSERT INTO "logged_model_tags" VALUES('m-bedd0e5abbc140628a240380568b2dd9',1,'kind','toy');
CREATE TABLE logged_models (
	model_id VARCHAR(36) NOT NULL, 
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(500) NOT NULL, 
	artifact_location VARCHAR(1000) NOT NULL, 
	creation_timestamp_ms BIGINT NOT NULL, 
	last_updated_timestamp_ms BIGINT NOT NULL, 
	status INTEGER NOT NULL, 
	lifecycle_stage VARCHAR(32), 
	model_type VARCHAR(500), 
	source_run_id VARCHAR(32), 
	status_message VARCHAR(1000), 
	CONSTRAINT logged_models_pk PRIMARY KEY (model_id), 
	CONSTRAINT logged_models_lifecycle_stage_check CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT fk_logged_models_experiment_id FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id) ON DELETE CASCADE
);
INSERT INTO "logged_models" VALUES('m-bedd0e5abbc140628a240380568b2dd9',1,'booster','file:///srv/mlflow/artifacts/churn/models/m-bedd0e5abbc140628a240380568b2dd9/artifacts',1795268471774,1795268471794,2,'active','agent','8cc03ae42bb2415a8929b3d7db479843',NULL);
CREATE TABLE "metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	step BIGINT DEFAULT '0' NOT NULL, 
	is_nan BOOLEAN DEFAULT '0' NOT NULL, 
	CONSTRAINT metric_pk PRIMARY KEY ("key", timestamp, step, run_uuid, value, is_nan), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
INSERT INTO "metrics" VALUES('auc',0.5,1795268471612,'8cc03ae42bb2415a8929b3d7db479843',0,0);
INSERT INTO "metrics" VALUES('auc',0.6,1795268471641,'8cc03ae42bb2415a8929b3d7db479843',1,0);
INSERT INTO "metrics" VALUES('auc',0.7,1795268471670,'8cc03ae42bb2415a8929b3d7db479843',2,0);
INSERT INTO "metrics" VALUES('auc',0.8,1795268471693,'8cc03ae42bb2415a8929b3d7db479843',3,0);
INSERT INTO "metrics" VALUES('auc',0.9,1795268471706,'8cc03ae42bb2415a8929b3d7db479843',4,0);
INSERT INTO "metrics" VALUES('val/loss',0.0,1795268471719,'8cc03ae42bb2415a8929b3d7db479843',-3,1);
INSERT INTO "metrics" VALUES('val/loss',1.79769313486231562234e+308,1795268471740,'8cc03ae42bb2415a8929b3d7db479843',1,0);
INSERT INTO "metrics" VALUES('floor',-1.79769313486231562234e+308,1795268471746,'8cc03ae42bb2415a8929b3d7db479843',0,0);
INSERT INTO "metrics" VALUES('accuracy',0.75,1795268471818,'8cc03ae42bb2415a8929b3d7db479843',2,0);
INSERT INTO "metrics" VALUES('auc',0.7,1795268471852,'1ea18447b03a4b18bf64e59d09f07f16',0,0);
INSERT INTO "metrics" VALUES('auc',0.1,1795268471971,'4bffa9b7d2ab42fda2f4fd229873ee1b',0,0);
CREATE TABLE "model_version_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value TEXT, 
	name VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT model_version_tag_pk PRIMARY KEY (workspace, "key", name, version), 
	CONSTRAINT fk_model_version_tags_model_versions FOREIGN KEY(workspace, name, version) REFERENCES model_versions (workspace, name, version) ON UPDATE CASCADE
);
INSERT INTO "model_version_tags" VALUES('seen','yes','churn',1,'default');
INSERT INTO "model_version_tags" VALUES('tone','warm','greeting',1,'default');
INSERT INTO "model_version_tags" VALUES('mlflow.prompt.is_prompt','true','greeting',1,'default');
INSERT INTO "model_version_tags" VALUES('_mlflow_prompt_type','text','greeting',1,'default');
INSERT INTO "model_version_tags" VALUES('mlflow.prompt.text','Hello {{name}}','greeting',1,'default');
INSERT INTO "model_version_tags" VALUES('mlflow.prompt.is_prompt','true','greeting',2,'default');
INSERT INTO "model_version_tags" VALUES('_mlflow_prompt_type','text','greeting',2,'default');
INSERT INTO "model_version_tags" VALUES('mlflow.prompt.text','Hi {{name}}','greeting',2,'default');
CREATE TABLE "model_versions" (
	name VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	creation_time BIGINT, 
	last_updated_time BIGINT, 
	description VARCHAR(5000), 
	user_id VARCHAR(256), 
	current_stage VARCHAR(20), 
	source VARCHAR(500), 
	run_id VARCHAR(32), 
	status VARCHAR(20), 
	status_message VARCHAR(500), 
	run_link VARCHAR(500), 
	storage_location VARCHAR(500), 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT model_version_pk PRIMARY KEY (workspace, name, version), 
	CONSTRAINT fk_model_versions_registered_models FOREIGN KEY(workspace, name) REFERENCES registered_models (workspace, name) ON UPDATE CASCADE
);
INSERT INTO "model_versions" VALUES('churn',1,1795268472130,1795268472234,NULL,NULL,'Production','file:///srv/mlflow/artifacts/churn/8cc03ae42bb2415a8929b3d7db479843/artifacts/model','8cc03ae42bb2415a8929b3d7db479843','READY',NULL,NULL,'file:///srv/mlflow/artifacts/churn/8cc03ae42bb2415a8929b3d7db479843/artifacts/model','default');
INSERT INTO "model_versions" VALUES('churn',2,1795268472144,1795268472144,'better',NULL,'None','file:///srv/mlflow/artifacts/churn/models/m-bedd0e5abbc140628a240380568b2dd9/artifacts','8cc03ae42bb2415a8929b3d7db479843','READY',NULL,NULL,'file:///srv/mlflow/artifacts/churn/models/m-bedd0e5abbc140628a240380568b2dd9/artifacts','default');
INSERT INTO "model_versions" VALUES('churn',3,1795268472156,1795268472156,NULL,NULL,'None','s3://bucket/models/other',NULL,'READY',NULL,'http://other.example/run','s3://bucket/models/other','default');
INSERT INTO "model_versions" VALUES('churn',4,1795268472166,1795268472191,NULL,NULL,'Deleted_Internal','REDACTED-SOURCE-PATH','REDACTED-RUN-ID','READY',NULL,'REDACTED-RUN-LINK','file:///srv/mlflow/artifacts/churn/8cc03ae42bb2415a8929b3d7db479843/artifacts/model','default');
INSERT INTO "model_versions" VALUES('greeting',1,1795268472260,1795268472260,'first',NULL,'None','dummy-source',NULL,'READY',NULL,NULL,'dummy-source','default');
INSERT INTO "model_versions" VALUES('greeting',2,1795268472286,1795268472286,NULL,NULL,'None','dummy-source',NULL,'READY',NULL,NULL,'dummy-source','default');
CREATE TABLE "params" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000) NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT param_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO "params" VALUES('learning_rate','0.1','8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "params" VALUES('num_leaves','31','8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "params" VALUES('note','xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx','8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "params" VALUES('p','','c796d44d28964987b33ba6e815f269af');
CREATE TABLE "registered_model_aliases" (
	alias VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT registered_model_alias_pk PRIMARY KEY (workspace, name, alias), 
	CONSTRAINT fk_registered_model_aliases_registered_models FOREIGN KEY(workspace, name) REFERENCES registered_models (workspace, name) ON DELETE CASCADE ON UPDATE CASCADE
);
INSERT INTO "registered_model_aliases" VALUES('champion',2,'churn','default');
INSERT INTO "registered_model_aliases" VALUES('live',2,'greeting','default');
CREATE TABLE "registered_model_tags" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(5000), 
	name VARCHAR(256) NOT NULL, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT registered_model_tag_pk PRIMARY KEY (workspace, "key", name), 
	CONSTRAINT fk_registered_model_tags_registered_models FOREIGN KEY(workspace, name) REFERENCES registered_models (workspace, name) ON UPDATE CASCADE
);
INSERT INTO "registered_model_tags" VALUES('owner','ann','churn','default');
INSERT INTO "registered_model_tags" VALUES('mlflow.prompt.is_prompt','true','greeting','default');
INSERT INTO "registered_model_tags" VALUES('tone','warm','greeting','default');
INSERT INTO "registered_model_tags" VALUES('_mlflow_experiment_ids',',1,','greeting','default');
CREATE TABLE "registered_models" (
	name VARCHAR(256) NOT NULL, 
	creation_time BIGINT, 
	last_updated_time BIGINT, 
	description VARCHAR(5000), 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT registered_model_pk PRIMARY KEY (workspace, name)
);
INSERT INTO "registered_models" VALUES('churn',1795268472107,1795268472234,'who leaves','default');
INSERT INTO "registered_models" VALUES('empty',1795268472244,1795268472244,NULL,'default');
INSERT INTO "registered_models" VALUES('greeting',1795268472255,1795268472286,'first','default');
CREATE TABLE "runs" (
	run_uuid VARCHAR(32) NOT NULL, 
	name VARCHAR(250), 
	source_type VARCHAR(20), 
	source_name VARCHAR(500), 
	entry_point_name VARCHAR(50), 
	user_id VARCHAR(256), 
	status VARCHAR(9), 
	start_time BIGINT, 
	end_time BIGINT, 
	source_version VARCHAR(50), 
	lifecycle_stage VARCHAR(20), 
	artifact_uri VARCHAR(200), 
	experiment_id INTEGER, deleted_time BIGINT, 
	CONSTRAINT run_pk PRIMARY KEY (run_uuid), 
	CONSTRAINT runs_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT source_type CHECK (source_type IN ('NOTEBOOK', 'JOB', 'LOCAL', 'UNKNOWN', 'PROJECT')), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CHECK (status IN ('SCHEDULED', 'FAILED', 'FINISHED', 'RUNNING', 'KILLED'))
);
INSERT INTO "runs" VALUES('8cc03ae42bb2415a8929b3d7db479843','parent','UNKNOWN','','','root','FINISHED',1795268471542,1795268471881,'','active','file:///srv/mlflow/artifacts/churn/8cc03ae42bb2415a8929b3d7db479843/artifacts',1,NULL);
INSERT INTO "runs" VALUES('1ea18447b03a4b18bf64e59d09f07f16','child','UNKNOWN','','','root','FINISHED',1795268471839,1795268471872,'','active','file:///srv/mlflow/artifacts/churn/1ea18447b03a4b18bf64e59d09f07f16/artifacts',1,NULL);
INSERT INTO "runs" VALUES('bf7e149fff1b446995e5592c0ad8fa9f','failed','UNKNOWN','','','unknown','FAILED',1795268471897,1795268471909,'','active','file:///srv/mlflow/artifacts/churn/bf7e149fff1b446995e5592c0ad8fa9f/artifacts',1,NULL);
INSERT INTO "runs" VALUES('0511402ce061455796ad2f0b107b86eb','killed','UNKNOWN','','','unknown','KILLED',1795268471921,1795268471945,'','active','file:///srv/mlflow/artifacts/churn/0511402ce061455796ad2f0b107b86eb/artifacts',1,NULL);
INSERT INTO "runs" VALUES('4bffa9b7d2ab42fda2f4fd229873ee1b','running','UNKNOWN','','','unknown','RUNNING',1795268471952,NULL,'','active','file:///srv/mlflow/artifacts/churn/4bffa9b7d2ab42fda2f4fd229873ee1b/artifacts',1,NULL);
INSERT INTO "runs" VALUES('c796d44d28964987b33ba6e815f269af','dropped','UNKNOWN','','','unknown','RUNNING',1795268471993,NULL,'','deleted','file:///srv/mlflow/artifacts/churn/c796d44d28964987b33ba6e815f269af/artifacts',1,1795268472027);
INSERT INTO "runs" VALUES('7607ddd89c6e4719afdf32d5f2c49d8a','of the default','UNKNOWN','','','unknown','RUNNING',1795268472030,NULL,'','active','/srv/mlflow/mlruns/0/7607ddd89c6e4719afdf32d5f2c49d8a/artifacts',0,NULL);
INSERT INTO "runs" VALUES('679c0c8653af4678ac92d7796d7d6384','far away','UNKNOWN','','','unknown','RUNNING',1795268472043,NULL,'','active','s3://bucket/models/away/679c0c8653af4678ac92d7796d7d6384/artifacts',2,NULL);
INSERT INTO "runs" VALUES('b52a2685ad914e4ea1ce96a7000097c1','lost','UNKNOWN','','','unknown','RUNNING',1795268472056,NULL,'','deleted','file:///srv/mlflow/artifacts/gone/b52a2685ad914e4ea1ce96a7000097c1/artifacts',3,1795268472075);
CREATE TABLE "tags" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000), 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT tag_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO "tags" VALUES('mlflow.user','root','8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "tags" VALUES('mlflow.source.name','/srv/mlflow/make.py','8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "tags" VALUES('stage','first','8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "tags" VALUES('mlflow.runName','parent','8cc03ae42bb2415a8929b3d7db479843');
INSERT INTO "tags" VALUES('mlflow.user','root','1ea18447b03a4b18bf64e59d09f07f16');
INSERT INTO "tags" VALUES('mlflow.source.name','/srv/mlflow/make.py','1ea18447b03a4b18bf64e59d09f07f16');
INSERT INTO "tags" VALUES('mlflow.source.type','LOCAL','1ea18447b03a4b18bf64e59d09f07f16');
INSERT INTO "tags" VALUES('mlflow.parentRunId','8cc03ae42bb2415a8929b3d7db479843','1ea18447b03a4b18bf64e59d09f07f16');
INSERT INTO "tags" VALUES('mlflow.runName','child','1ea18447b03a4b18bf64e59d09f07f16');
INSERT INTO "tags" VALUES('mlflow.runName','failed','bf7e149fff1b446995e5592c0ad8fa9f');
INSERT INTO "tags" VALUES('mlflow.runName','killed','0511402ce061455796ad2f0b107b86eb');
INSERT INTO "tags" VALUES('mlflow.note.content','a
b','4bffa9b7d2ab42fda2f4fd229873ee1b');
INSERT INTO "tags" VALUES('mlflow.runName','running','4bffa9b7d2ab42fda2f4fd229873ee1b');
INSERT INTO "tags" VALUES('mlflow.runName','dropped','c796d44d28964987b33ba6e815f269af');
INSERT INTO "tags" VALUES('mlflow.runName','of the default','7607ddd89c6e4719afdf32d5f2c49d8a');
INSERT INTO "tags" VALUES('mlflow.runName','far away','679c0c8653af4678ac92d7796d7d6384');
INSERT INTO "tags" VALUES('mlflow.runName','lost','b52a2685ad914e4ea1ce96a7000097c1');
COMMIT;
