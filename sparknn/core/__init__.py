"""The algorithm of sparknn, on numpy alone.

nn/         one network: layers, activations, losses, solvers, step-size schedules
training/   the distributed algorithm: a worker's round, exact sums, averaging rules, the loop
data/       plumbing: rows however stored, and the mini-batches drawn from them
config.py   configuration of a fit: TrainConfig, AveragingConfig; RoundRequest
predictor.py  predictions of a trained network, without Spark
"""
