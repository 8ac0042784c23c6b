"""A plugin for napari: restore the selected image layer.

napari finds it by its manifest, ``napari.yaml``, and imports it when the widget is opened.
"""
