"""TensorBoard, MLflow and Weights & Biases: a run's metrics, configuration and summary where a team looks at them.

They run in the driver process, fed by the events of rank 0, each by its official library in a thread of its own.
Training neither waits for them nor fails with them.

Ray's own integrations (ray.air.integrations.wandb and .mlflow of Ray 2.60, both "alpha") are not used. They belong
into the training function: uploads and retries would happen in rank 0's process, for which all ranks wait, and a
library that fails or hangs would take the run along. setup_wandb also finds rank 0 by the session of the former Ray
Train, which is empty under the present one, so that every worker would begin a run; and there is none for TensorBoard.

Nothing is tracked, and nothing sent, unless asked for. Then MLflow writes into a database in the folder of all runs if
MLFLOW_TRACKING_URI names no server; W&B sends to the server where one has logged in, and stays on this machine with
WANDB_MODE=offline. The libraries' reports about their own use are off unless the environment says otherwise.
"""
