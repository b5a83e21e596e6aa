"""Training by model averaging, driver and worker side by side.

The driver
rounds.py         the loop over rounds: broadcast, train, average, score, stop
runner.py         what the loop needs from an engine
fit_state.py      one network between rounds
averaging.py      the averaging rules: from the workers' mean to the next network
final_weights.py  which weights a fit ends with
history.py        the record of a round
round_length.py   how much local work a round does

A worker
worker_round.py   one round: score, draw mini-batches, step, report
local_trainer.py  one network: a solver step per mini-batch
aggregation.py    exact sums over workers
"""
