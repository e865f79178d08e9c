"""Two LoRAs of the embedded U-Net, each of which draws stickers in a look of its own.

what the looks are      drawing.draw_neon
scenes in a look        samples.open_samples
the LoRA                lora.Adapters
train one               train.train_lora
write the shipped file  train.export_lora
"""
