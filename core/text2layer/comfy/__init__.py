"""Text2Layer in ComfyUI.

The U-Net as an ordinary model    model.load_text2layer
Drop-down of files                model.TEXT2LAYER_FILES
Layers to latents and back        vae.LayeredVae
A layer for each thing            layer_by_layer.paint_layers
Data step 4: fill the background  splitting.fill_background
A U-Net that can be trained       trainable.TrainableUNet
"""
