"""Operations of a ResNet."""

import torch
import torch.nn.functional as F

from common import DTYPES, back, compiled, images, layout


class Copy:
    def __init__(self, case, inputs, variant):
        self.x = inputs["x"]

    def run(self):
        return self.x.clone()

    def outputs(self):
        return {"y": self.run()}


class Conv2d:
    """One pass of a convolution. In bf16 the weights are bf16 too: PyTorch's fastest form."""

    def __init__(self, case, inputs, variant):
        dtype = DTYPES[case["precision"]]
        self.stride, self.padding, self.backward = case["stride"], case["padding"], case["backward"]
        self.x = images(inputs["x"], variant)
        self.w = images(inputs["w"], variant).to(dtype).contiguous(memory_format=layout(variant)).requires_grad_()
        self.leaves = [self.w]
        self.names = ["w.grad"]
        if case["input_gradient"]:
            self.x.requires_grad_()
            self.leaves.append(self.x)
            self.names.append("x.grad")
        if self.backward:
            self.dy = images(inputs["dy"], variant)
            self.y = self.forward()

    def forward(self):
        return F.conv2d(self.x, self.w, None, self.stride, self.padding)

    def run(self):
        if self.backward:
            return torch.autograd.grad(self.y, self.leaves, self.dy, retain_graph=True)
        return self.forward()

    def outputs(self):
        if self.backward:
            return dict(zip(self.names, map(back, self.run())))
        return {"y": back(self.run())}


class BatchNorm:
    """Batch norm, the residual sum and ReLU in place, as torchvision's blocks call them."""

    def __init__(self, case, inputs, variant):
        self.eps = case["eps"]
        self.x = images(inputs["x"], variant).requires_grad_()
        self.dy = images(inputs["dy"], variant)
        self.gamma = inputs["gamma"].clone().requires_grad_()
        self.beta = inputs["beta"].clone().requires_grad_()
        self.mean, self.var = torch.zeros_like(inputs["gamma"]), torch.ones_like(inputs["gamma"])
        self.residual = images(inputs["residual"], variant).requires_grad_() if case["residual"] else None
        self.forward = compiled(self.forward_plain, variant)

    def forward_plain(self, x, gamma, beta, residual):
        y = F.batch_norm(x, self.mean, self.var, gamma, beta, True, 0.1, self.eps)
        if residual is not None:
            y += residual
        return F.relu_(y)

    def run(self):
        leaves = [self.x, self.gamma, self.beta]
        if self.residual is not None:
            leaves.append(self.residual)
        y = self.forward(self.x, self.gamma, self.beta, self.residual)
        return y, torch.autograd.grad(y, leaves, self.dy)

    def outputs(self):
        y, grads = self.run()
        outputs = {"y": back(y), "x.grad": back(grads[0]), "gamma.grad": grads[1], "beta.grad": grads[2]}
        if self.residual is not None:
            outputs["residual.grad"] = back(grads[3])
        return outputs


class MaxPool:
    def __init__(self, case, inputs, variant):
        self.args = case["kernel"], case["stride"], case["padding"]
        self.x = images(inputs["x"], variant).requires_grad_()
        self.dy = images(inputs["dy"], variant)

    def run(self):
        y = F.max_pool2d(self.x, *self.args)
        return y, torch.autograd.grad(y, self.x, self.dy)

    def outputs(self):
        y, (dx,) = self.run()
        return {"y": back(y), "x.grad": back(dx)}


class Linear:
    def __init__(self, case, inputs, variant):
        dtype = DTYPES[case["precision"]]
        self.x = inputs["x"].clone().requires_grad_()
        self.w = inputs["w"].to(dtype, copy=True).requires_grad_()
        self.dy = inputs["dy"].clone()

    def run(self):
        y = F.linear(self.x, self.w)
        return y, torch.autograd.grad(y, (self.x, self.w), self.dy)

    def outputs(self):
        y, (dx, dw) = self.run()
        return {"y": y.detach(), "x.grad": dx, "w.grad": dw}
