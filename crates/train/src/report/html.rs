//! A page of HTML. Every text that comes from outside is escaped here and nowhere else.

/// A page as it grows.
pub(super) struct Page {
    body: String,
    title: String,
}

/// Nothing is fetched and nothing runs, whatever stands in a text.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--faint:#667080;--line:#d8dde3;--a:#0b62c4;--b:#c2410c}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e4e8ed;--faint:#98a2b0;--line:#323942;--a:#6cb2ff;--b:#ff9a62}}
body{background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid var(--line)}h3{font-size:1rem}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);padding:.25rem .6rem;text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere}
th{color:var(--faint);font-weight:600;white-space:nowrap}
pre{border:1px solid var(--line);padding:.8rem;overflow-x:auto;font-size:13px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:1rem}figure{margin:0}
svg{width:100%;height:auto}svg text{fill:var(--faint);font-size:11px}svg .title{fill:var(--ink);font-size:13px}
svg .grid{stroke:var(--line)}svg .s0{stroke:var(--a);fill:none;stroke-width:1.5}svg .s1{stroke:var(--b);fill:none;stroke-width:1.5}
svg .d0{fill:var(--a)}svg .d1{fill:var(--b)}
.bar{background:var(--a);height:.6rem;min-width:1px}.wide{width:30%}
";

impl Page {
    pub(super) fn new(title: &str) -> Self {
        Self {
            body: format!("<h1>{}</h1>\n", escaped(title)),
            title: escaped(title),
        }
    }

    pub(super) fn heading(&mut self, text: &str) {
        self.add(&format!("<h2>{}</h2>\n", escaped(text)));
    }

    pub(super) fn subheading(&mut self, text: &str) {
        self.add(&format!("<h3>{}</h3>\n", escaped(text)));
    }

    pub(super) fn paragraph(&mut self, text: &str) {
        self.add(&format!("<p>{}</p>\n", escaped(text)));
    }

    pub(super) fn preformatted(&mut self, text: &str) {
        // A first line break after the tag would be swallowed.
        self.add(&format!("<pre>\n{}</pre>\n", escaped(text)));
    }

    /// Pictures side by side, each of which is markup already.
    pub(super) fn figures(&mut self, pictures: impl Iterator<Item = String>) {
        self.add("<div class=\"figures\">\n");
        for picture in pictures {
            self.add(&format!("<figure>{picture}</figure>\n"));
        }
        self.add("</div>\n");
    }

    pub(super) fn table<const N: usize>(
        &mut self,
        header: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) {
        self.add("<table>\n");
        if header.iter().any(|name| !name.is_empty()) {
            self.add(&row("th", &header.map(escaped)));
        }
        for cells in rows {
            self.add(&row("td", &cells.map(|cell| escaped(&cell))));
        }
        self.add("</table>\n");
    }

    /// A table with a bar at the end of each row, as long as a share of the longest.
    pub(super) fn bars<const N: usize>(
        &mut self,
        header: [&str; N],
        rows: impl IntoIterator<Item = ([String; N], f64)>,
    ) {
        self.add("<table>\n");
        let header = header.map(escaped).map(|name| cell("th", &name)).concat();
        self.add(&format!("<tr>{header}<th class=\"wide\"></th></tr>\n"));
        for (cells, share) in rows {
            let cells = cells.map(|text| cell("td", &escaped(&text))).concat();
            let percent = 100.0 * share.clamp(0.0, 1.0);
            self.add(&format!(
                "<tr>{cells}<td class=\"wide\"><div class=\"bar\" style=\"width:{percent:.1}%\"></div></td></tr>\n"
            ));
        }
        self.add("</table>\n");
    }

    pub(super) fn finish(self) -> String {
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
            self.title, self.body
        )
    }

    fn add(&mut self, markup: &str) {
        self.body.push_str(markup);
    }
}

fn row(tag: &str, cells: &[String]) -> String {
    let cells: String = cells.iter().map(|markup| cell(tag, markup)).collect();
    format!("<tr>{cells}</tr>\n")
}

fn cell(tag: &str, markup: &str) -> String {
    format!("<{tag}>{markup}</{tag}>")
}

/// Text as markup that shows it.
pub(super) fn escaped(text: &str) -> String {
    let mut markup = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => markup.push_str("&amp;"),
            '<' => markup.push_str("&lt;"),
            '>' => markup.push_str("&gt;"),
            '"' => markup.push_str("&quot;"),
            '\'' => markup.push_str("&#39;"),
            // HTML has no way to write the other control characters.
            c if c.is_control() && !matches!(c, '\n' | '\t') => markup.push('\u{fffd}'),
            c => markup.push(c),
        }
    }
    markup
}
