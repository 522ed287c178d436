"""Evaluations of features: scikit-learn's logistic regression over a sweep of penalties."""

import numpy as np
import torch

from common import Unsupported


class Logistic:
    """The objective is the mean of the cross entropies plus penalty / 2 |W|^2 over the rows."""

    def __init__(self, case, inputs, variant):
        try:
            from sklearn.linear_model import LogisticRegression
            from threadpoolctl import threadpool_limits
        except ImportError as error:
            raise Unsupported(f"scikit-learn is not installed there ({error})") from error
        self.model, self.limits, self.case, self.warm = LogisticRegression, threadpool_limits, case, variant == "warm"
        self.x, self.labels = inputs["x"].cpu().numpy(), inputs["labels"].cpu().numpy()

    def run(self):
        found = []
        with self.limits(limits=torch.get_num_threads()):
            model = self.model(tol=self.case["tolerance"], max_iter=self.case["iterations"], warm_start=self.warm)
            for penalty in sorted(self.case["penalties"], reverse=True):
                model.set_params(C=1 / penalty).fit(self.x, self.labels)
                found.append((penalty, model.coef_.copy(), model.intercept_.copy()))
        return found

    def outputs(self):
        x, rows, objectives = self.x.astype(np.float64), np.arange(len(self.x)), {}
        for penalty, w, b in self.run():
            logits = x @ w.T.astype(np.float64) + b
            top = logits.max(1)
            entropy = np.log(np.exp(logits - top[:, None]).sum(1)) + top - logits[rows, self.labels]
            objectives[penalty] = entropy.mean() + penalty / 2 * (w.astype(np.float64) ** 2).sum() / len(x)
        return {"objectives": torch.tensor([objectives[penalty] for penalty in self.case["penalties"]], dtype=torch.float64)}
