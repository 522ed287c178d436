"""kNN: lightly's, by products with the whole bank for a batch of test features at a time."""

import torch

from common import Unsupported


class Neighbors:
    """Features come normalized, and the bank lies as its products like it best, outside of what is timed."""

    def __init__(self, case, inputs, variant):
        try:
            from lightly.utils.benchmarking.knn import knn_predict
        except ImportError as error:
            raise Unsupported(f"lightly is not installed there ({error})") from error
        kind, batch = variant.split("_")
        dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        self.predict, self.case, self.batch = knn_predict, case, int(batch)
        self.bank = inputs["train"].to(dtype).t().contiguous()
        self.test, self.labels = inputs["test"].to(dtype), inputs["train_labels"]
        self.truth = inputs["test_labels"]

    def run(self):
        case = self.case
        return torch.cat([
            self.predict(x, self.bank, self.labels, case["classes"], case["k"], case["temperature"])[:, 0]
            for x in self.test.split(self.batch)
        ])

    def outputs(self):
        similarities = torch.cat([(x @ self.bank).topk(self.case["k"], dim=-1)[0] for x in self.test.split(self.batch)])
        accuracy = (self.run() == self.truth).float().mean().reshape(1)
        return {"similarities": similarities.float(), "accuracy": accuracy}
