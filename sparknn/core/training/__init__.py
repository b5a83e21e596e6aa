"""Training by model averaging, driver and worker side by side.

rounds.py         the loop: broadcast, train, average, score, stop
worker_round.py   what one worker does in one round
local_trainer.py  one network on one worker: a step for each mini-batch
aggregation.py    exact sums over workers
averaging.py      the averaging rules: from the workers' mean to the next network
fit_state.py      one network between rounds
"""
