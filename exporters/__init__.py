"""From networks to ONNX files that take uint8 images and give embeddings.

`exporters.export` exports the backbones of the table, `exporters.adapt` wraps somebody else's ONNX file,
`exporters.half` makes a file compute in float16.
"""
