"""Layers as functions, with torch.nn.functional's conventions: everything here is correlation, nothing flips."""

from sigconv.nn.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d, linear
