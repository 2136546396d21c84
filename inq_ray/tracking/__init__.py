"""Trackers: a run's metrics, configuration and summary in TensorBoard, MLflow and Weights & Biases.

They run in the driver process, which receives rank 0's events, each with its official library in its own thread.
Training neither waits for them nor fails with them.

Ray's own integrations (ray.air.integrations.wandb and .mlflow of Ray 2.60, both "alpha") are not used. They belong into
the training function: uploads and retries would happen in rank 0's process, for which all ranks wait, and a library
that fails or hangs would stop the run. setup_wandb also finds rank 0 by the session of the former Ray Train, which is
empty under the present one, so that every worker would start a run; and there is none for TensorBoard.

Nothing is tracked or sent by default. MLflow writes into a database in the folder of all runs unless
MLFLOW_TRACKING_URI names a server. W&B sends to the server that you are logged in to, or keeps files on this machine
with WANDB_MODE=offline. The libraries' usage reports are off unless the environment enables them.
"""
