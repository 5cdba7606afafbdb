//! Bars, a group for each case, as long as the cost beside the group's highest.

use std::fmt::Write as _;

use super::Row;

/// Width of the highest bar, and where bars begin.
const BAR: f64 = 400.0;
const LEFT: f64 = 100.0;

/// Heights of a line of text and of a bar with its gap.
const LINE: f64 = 26.0;
const STEP: f64 = 19.0;

/// An SVG document; light, also where the page around it is dark.
pub(super) fn chart(rows: &[Row]) -> String {
    let mut body = String::new();
    let mut y = 24.0;
    let mut group = None;
    for row in rows {
        let this = (&row.case, &row.variant);
        if group != Some(this) {
            group = Some(this);
            y += LINE + 6.0;
            let (case, variant, unit) = (&row.case, &row.variant, &row.unit);
            let _ = writeln!(
                body,
                r##"<text x="10" y="{y}"><tspan font-weight="bold">{case} {variant}</tspan><tspan fill="#6c757d"> {unit}</tspan></text>"##
            );
        }
        let same = rows
            .iter()
            .filter(|other| (&other.case, &other.variant) == this);
        let most = same.fold(0.0, |most: f64, row| most.max(row.cost));
        let width = if most > 0.0 {
            row.cost / most * BAR
        } else {
            0.0
        };
        let (colour, weight) = match row.peer.as_str() {
            "sealane" => ("#0b7285", "bold"),
            _ => ("#adb5bd", "normal"),
        };
        y += STEP;
        let ratio = row.sealane_by(rows);
        let ratio = ratio.map_or_else(String::new, |ratio| {
            format!(" (Sealane takes {:.2} ×)", ratio.mean)
        });
        let _ = writeln!(
            body,
            r#"<text x="10" y="{y}" font-weight="{weight}">{}</text><rect x="{LEFT}" y="{}" width="{width:.1}" height="14" fill="{colour}"/><text x="{:.0}" y="{y}">{:.2}{ratio}</text>"#,
            row.peer,
            y - 12.0,
            LEFT + 6.0 + width,
            row.cost
        );
    }
    let height = y + 16.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" viewBox=\"0 0 760 {height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#212529\">\n\
         <rect width=\"760\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\">Sealane beside its peers: medians, shorter is better</text>\n\
         {body}</svg>\n"
    )
}
