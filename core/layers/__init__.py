"""Pictures in layers, on the canvas and in files (Text2Layer, arXiv 2307.09781: I = m F + (1 - m) B).

I = m F + (1 - m) B, and its layers    layered_image.LayeredImage
section 3, F where m is above 0.1      placing.keep_inside
ComfyUI's LAYERS, in                   layered_image.from_layers
ComfyUI's LAYERS, out                  layered_image.to_layers
one layer in its place                 placing.placed
pictures become layers                 stacking.stack_pictures
layers moved, changed, with shadows    arrangement.arrange
8 bits, once for all files             stored.stored
files of any format, out               files.write_layer_file
files of any format, in                files.read_layer_file
Photoshop documents                    photoshop.write_psd
OpenRaster                             openraster.write_openraster
in ComfyUI's folders                   comfy.save_layers
"""
