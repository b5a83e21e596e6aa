"""The arithmetic of sparknn, on numpy alone.

nn/         one network: layers, activations, losses, solvers, step-size schedules
training/   the distributed algorithm: a worker's round, exact sums, averaging rules, the loop
data/       plumbing: rows as they are stored, and the mini-batches drawn from them
config.py   what a fit is told: TrainConfig, AveragingConfig
predictor.py  a trained network that predicts without Spark
"""
