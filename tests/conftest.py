import os

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
