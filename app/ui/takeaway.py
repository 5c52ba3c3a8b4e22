"""What a person takes away: the conversation as text and as PDF.

In: turns. Out: a string, or the bytes of a PDF. The PDF is made with fpdf2, which is loaded only then.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.ui.look import share
from symptomchat.files import MODELS
from symptomchat.runtime.assistant import NOTICE as EACH
from symptomchat.runtime.dialogue import Turn

NOTICE = "SymptomChat. Information, not diagnosis."
FONTS = (
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf",
    "/Library/Fonts/Arial Unicode.ttf",
    "/System/Library/Fonts/Supplemental/Arial Unicode.ttf",
    "C:/Windows/Fonts/arial.ttf",
)
"""Fonts of common systems that hold more than Latin; without one the PDF has Latin letters alone."""


def blocks(turns: Sequence[Turn]) -> list[tuple[str, str]]:
    """``(said, answered)`` of every turn, in plain text."""
    parts = []
    for turn in turns:
        answer = turn.answer
        lines = [turn.note] if turn.note else []
        if answer is not None:
            # The head of the whole says so once.
            lines += [line for line in answer.reply.split("\n") if line != EACH]
            ranked = [c for c in answer.conditions[:5] if c.probability >= 0.01]
            if answer.intent != "none" and ranked:
                lines.append("Ranking: " + "; ".join(f"{c.name} {share(c.probability)}" for c in ranked))
            lines.append(f"Confidence {share(answer.confidence)}")
        parts.append((turn.said, "\n".join(lines)))
    return parts


def as_text(turns: Sequence[Turn]) -> str:
    """The conversation as plain text, for one's doctor."""
    lines = [NOTICE, ""]
    for said, answered in blocks(turns):
        lines += [f"> {said}", "", answered, ""]
    return "\n".join(lines)


def as_pdf(turns: Sequence[Turn], model: str = MODELS.name) -> bytes:
    """The conversation as a PDF of A4 pages."""
    from fpdf import FPDF
    from fpdf.enums import WrapMode

    pdf = FPDF(format="A4")
    pdf.set_title("SymptomChat")
    pdf.set_auto_page_break(True, margin=18)
    pdf.set_margin(18)
    pdf.add_page()
    font = next((path for path in FONTS if Path(path).is_file()), None)
    if font:
        pdf.add_font("text", fname=font)
        pdf.set_font("text", size=16)
    else:
        pdf.set_font("helvetica", size=16)

    def line(text: str, size: int, shade: int, height: float) -> None:
        """One paragraph; what the font cannot show becomes a question mark."""
        text = printable(text)
        if not font:
            text = text.encode("latin-1", "replace").decode("latin-1")
        pdf.set_text_color(shade)
        pdf.set_font_size(size)
        pdf.multi_cell(0, height, text, new_x="LMARGIN", new_y="NEXT", wrapmode=WrapMode.CHAR)

    line("SymptomChat", 16, 0, 9)
    line(f"Information, not diagnosis. Model: {model}.", 9, 90, 5)
    for said, answered in blocks(turns):
        pdf.ln(3)
        pdf.set_draw_color(200)
        pdf.line(18, pdf.get_y(), 192, pdf.get_y())
        pdf.ln(2)
        line(said, 11, 20, 6)
        pdf.ln(1)
        line(answered, 9, 60, 5)
    return bytes(pdf.output())


def printable(text: str) -> str:
    """Without control characters and signs beyond the basic plane, which few fonts hold."""
    return "".join(
        char
        if char == "\n" or (char.isprintable() and ord(char) < 0x10000)
        else " "
        if char.isspace()
        else "?"
        for char in text
    )
