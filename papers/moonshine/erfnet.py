"""ERFNet with cheap blocks: Crowley, Gray, Storkey, "Moonshine: Distilling with Cheap Convolutions", NeurIPS
2018, table 4: Cityscapes.

Every residual block of ERFNet gives way to one of G(N): of its two convolutions 3x3 (each as 3x1 and 1x3)
each becomes a depthwise 3x3 and a 1x1. The downsamplers, the upsamplers and the head stay as they are.
"""

from torch import nn

from papers.moonshine.plain_erfnet import EPS, ERFNet, ERFNetEncoder, residual_block


def cheap_block(channels: int, dropout: float, dilation: int) -> nn.Module:
    """relu(dropout(GConv, BN, ReLU, 1x1, BN, ReLU, GConv dilated, BN, ReLU, 1x1, BN) + x), without biases.

    2 (9 N + N²) weights of convolutions and 16 N of batch normalisations (running statistics among them) for
    N channels; that reading alone gives the printed size of the whole net, 503,956.

    Args:
        channels: N, of inputs and outputs.
        dropout: probability of whole channels of the residual.
        dilation: of the second depthwise convolution.
    """
    layers: list[nn.Module] = []
    for step in (1, dilation):
        depthwise = nn.Conv2d(channels, channels, 3, padding=step, dilation=step, groups=channels, bias=False)
        for convolution in (depthwise, nn.Conv2d(channels, channels, 1, bias=False)):
            layers += [convolution, nn.BatchNorm2d(channels, eps=EPS), nn.ReLU(inplace=True)]
    return residual_block(layers[:-1], dropout)


class CheapERFNetEncoder(ERFNetEncoder):
    """The first phase of `CheapERFNet`."""

    block = staticmethod(cheap_block)


class CheapERFNet(ERFNet):
    """ERFNet-G(N): 501,376 parameters and statistics with 20 logits, and 2,580 of the first phase's head."""

    block = staticmethod(cheap_block)
