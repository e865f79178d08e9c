"""Text2Layer (arXiv 2307.09781): foreground, background and mask from one prompt.

Section 3: I = m F + (1 - m) B  autoencoder.compose
Section 4.1: CaT2I-AE           autoencoder.LayeredAutoencoder
Section 4.1: L_mask             losses.mask_loss
Section 4.1: l_lap              losses.laplacian_loss
Section 4.1: l_comp             losses.composition_loss
Section 4.1: all layers' loss   losses.layered_loss
Section 4.1: adversarial loss   discriminator.adversarial_loss
Data: foreground and hole       splitting.cut_foreground
Data: how good a split is       split_quality.measure_background
Words for each layer            prompts.split_prompt
Files                           files.read_text2layer
In ComfyUI's samplers           comfy.model.load_text2layer
A layer for each thing          comfy.layer_by_layer.paint_layers
"""
