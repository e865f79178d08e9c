"""The embedded VQGAN of TCIG's first stage.

train it                     vqgan.train_vqgan
write its folder             vqgan.export_vqgan
how well it keeps a picture  vqgan.vqgan_psnr
"""
