"""xray finds abnormalities in chest radiographs. Not for clinical use."""

__version__ = "0.1.0"
