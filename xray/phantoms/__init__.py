"""How phantoms are drawn and written; `xray.phantoms.vinbig` is the way in."""
