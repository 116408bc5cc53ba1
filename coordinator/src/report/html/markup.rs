//! Text made safe for HTML.

use std::fmt;

/// Appends formatted text to a `String`. Unlike `write!`, it has no result to ignore: a `String` takes any
/// text.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {
        $out.push_str(&std::fmt::format(format_args!($($arg)*)))
    };
}

/// Outside text, written so that it stays text in HTML content and in double-quoted attributes.
///
/// Control characters and those that reorder text are replaced: a site name must not be able to disguise the
/// row it stands in.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(c)?,
                '\r' => {}
                c if c.is_control() || is_reordering(c) => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Unicode's explicit embeddings, overrides and isolates (UAX 9, section 2).
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Shortens a label to about `width` columns with an ellipsis; East Asian and emoji characters count as two.
pub(super) fn shortened(text: &str, width: usize) -> String {
    let columns = |c: char| if c >= '\u{2e80}' { 2 } else { 1 };
    if text.chars().map(columns).sum::<usize>() <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let mut kept: String = text
        .chars()
        .take_while(|&c| {
            used += columns(c);
            used <= width
        })
        .collect();
    kept.truncate(kept.trim_end().len());
    kept.push('…');
    kept
}
