"""The noun that every method reads: what lies where on a canvas.

a layout, painter's order                  layout.Layout
a region                                   region.Region
one layout for each picture                layout.layouts_of
out of lines or JSON text                  reading.parse_layout
out of JSON values, masks and boxes        reading.layout_from_data
lines and JSON as plain values             text.read_layout_text
out of COCO, GLIGEN and others             other_programs.import_layout
out of English sentences                   words.described.layout_of_sentences
out of language models' answers            words.answers.find_layout
ComfyUI's boxes, in                        boxes.read_bounding_boxes
found masks, SEGS and corners, in          detections.segments.read_segments
ComfyUI's boxes, out                       writing.write_bounding_boxes
elements, out                              writing.write_elements
Ideogram 4's JSON prompt, out              writing.write_json_prompt
ComfyUI's LAYERS, in                       layer_stack.read_layers
ComfyUI's LAYERS, out                      writing.write_layers
pictures of the things, out                writing.reference_batch
boxes over each other                      masks.visible_boxes
exact shares of cells                      masks.box_coverage
masks on other grids                       masks.resample_by_area
what lies inside of a mask                 masks.inside_of
masks too faint to be meant                masks.is_empty
the box around a mask                      masks.outer_box
pieces of a mask                           masks.largest_components
masks grown and shrunk                     masks.grown
soft edges                                 masks.soften
holes filled from around                   masks.fill_hole
masks as ellipses and polygons             shapes.draw_shape
masks as COCO's runs                       run_length.decode_runs
what the layout canvas means               canvas.read_canvas
a layout drawn                             preview.draw_layout
moved, scaled, mirrored, renamed           variations.edit_layout
its texts in a prompt                      prompts.fill_prompt
"""
