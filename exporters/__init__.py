"""From torch to ONNX files that take uint8 images and give embeddings, with parity checked.

It uses tlcache's networks, and tlcache uses it in one place: a backbone is exported when its ONNX file is first needed.
"""

import tlcache as tlcache  # before ONNX Runtime, whose telemetry it switches off
