"""How phantoms are drawn and written; `xray.data.phantoms` is the way in."""
