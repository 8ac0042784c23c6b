"""napari plugin that restores an image layer.

napari discovers it by its manifest, ``napari.yaml``, and imports it when the widget is opened.
"""
