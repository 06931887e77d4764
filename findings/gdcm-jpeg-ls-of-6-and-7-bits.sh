#!/usr/bin/env bash
# python-gdcm reads JPEG-LS of 8 and 12 bits, but gives no pixels at all, and no reason, for 7 bits and most pictures of 6 (nor
# for near-lossless data of 4 to 7); CharLS itself, as pyjpegls has it, reads them exactly.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install python-gdcm==3.2.6 pyjpegls==1.5.1 numpy==2.4.6
cat > "$folder/try.py" <<'PYTHON'
import importlib.metadata
import sys

import gdcm
import jpeg_ls
import numpy as np

for name in ("python-gdcm", "pyjpegls"):
    print(name, importlib.metadata.version(name))


def by_gdcm(code, shape, bits):
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(code + b"\0" * (len(code) % 2))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((shape[1], shape[0], 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLSLossless))
    image.SetPixelFormat(gdcm.PixelFormat(1, 8, bits, bits - 1, 0))
    return image.GetBuffer()


given = {}
for bits in (6, 7, 8):
    pixels = (np.add.outer(np.arange(64), np.arange(80)) * (2**bits - 1) // 142).astype(np.uint8)
    code = bytes(jpeg_ls.encode_array(pixels))
    data, _ = jpeg_ls.decode_buffer(code)
    assert bytes(data) == pixels.tobytes()
    decoded = by_gdcm(code, pixels.shape, bits)
    given[bits] = decoded is not None and decoded.encode("utf-8", "surrogateescape") == pixels.tobytes()
    print(f"{bits} bits: pyjpegls exact; python-gdcm {'exact' if given[bits] else 'gives ' + repr(decoded)}")
sys.exit(given != {6: False, 7: False, 8: True})
PYTHON
"$folder/venv/bin/python" "$folder/try.py" 2>/dev/null
# Seen: 6 bits: python-gdcm gives None; 7 bits: gives None; 8 bits: exact.
