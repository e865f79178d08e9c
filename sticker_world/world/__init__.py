"""The world itself: things, places, scenes, captions.

what there is                       concepts.CONCEPTS
a scene and all that is true of it  scene.make_scene
a background                        backgrounds.paint_background
its caption                         captions.write_caption
the words                           vocabulary.vocabulary
training scenes on disk             dataset.open_scenes
the shipped layered picture         layered_picture.draw_picture
"""
