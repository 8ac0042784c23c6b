"""Images: file formats, tiles, presets, cost, and :func:`~dop_lightning.images.recover.recover_image`."""
