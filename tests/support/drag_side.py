"""A program of its own with a file to be dragged: a small window, which gives the file away."""

from __future__ import annotations

import sys

from PySide6.QtCore import QMimeData, Qt, QUrl
from PySide6.QtGui import QDrag, QMouseEvent
from PySide6.QtWidgets import QApplication, QLabel


class File(QLabel):
    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(sys.argv[1])])
        drag = QDrag(self)
        drag.setMimeData(data)
        drag.exec(Qt.DropAction.CopyAction)


application = QApplication(["files"])
file = File("file")
file.setWindowTitle("some files")
file.resize(80, 40)
file.move(1050, 730)
file.show()
application.exec()
