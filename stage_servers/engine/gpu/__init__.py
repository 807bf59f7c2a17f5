"""The text layers and the encoder's attention on a GPU: few kernels per layer, decodes as captured graphs."""
