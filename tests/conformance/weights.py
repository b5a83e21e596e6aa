"""Check row weights: 0 drops a row, 2 repeats it."""

import numpy as np

from conformance.subject import Subject


def check_weights_are_exact(subject: Subject) -> None:
    n = 60
    weight = np.arange(n) % 3
    frame = subject.table(n=n, w=weight.astype(float))
    repeated = frame.where("w > 0").union(frame.where("w = 2"))
    weighted = subject.full_batch(weightCol="w").fit(frame)
    by_rows = subject.full_batch().fit(repeated)
    np.testing.assert_allclose(
        _outputs(subject, weighted), _outputs(subject, by_rows), rtol=1e-4, atol=1e-5
    )
    # The weights did something.
    unweighted = subject.full_batch().fit(frame)
    assert not np.allclose(_outputs(subject, weighted), _outputs(subject, unweighted), rtol=1e-3)


def _outputs(subject: Subject, model: object) -> np.ndarray:
    local = model.toLocal()  # type: ignore[attr-defined]
    outputs = local.predict_raw(subject.X)
    return outputs if subject.classifies else outputs / np.abs(subject.y).max()
