use crate::error::TextError;
use crate::labels::Labels;
use crate::words::single_line;

/// A control code: the line that a model is conditioned on, such as
/// `Product type: {domain} | Review score: {label}`.
///
/// Private records are shown under it in training, and samples are drawn under it afterwards, so it must be the same
/// text both times (Yue et al., ACL 2023, arXiv 2210.14348). It names the domain and the label and nothing else of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Literal text, the domain included.
    Text(String),
    Label,
}

impl Template {
    /// A control code of a pattern with `{label}`, and `{domain}` if there is one to name. `{{` and `}}` stand for braces.
    ///
    /// Errors: a brace without its partner, another placeholder, no `{label}`, `{domain}` without a domain or a domain
    /// without `{domain}`, more than one line, white space at the ends.
    pub fn new(pattern: &str, domain: &str) -> Result<Self, TextError> {
        let refuse = |reason: String| TextError::Template { pattern: pattern.to_owned(), reason };
        for (what, text) in [("pattern", pattern), ("domain", domain)] {
            if text != single_line(text) {
                let reason =
                    format!("the {what} must be one line, without white space at its ends or doubled");
                return Err(refuse(reason));
            }
        }
        let mut template = Self { parts: Vec::new() };
        let (mut labels, mut domains) = (0, 0);
        let mut rest = pattern;
        while let Some(at) = rest.find(['{', '}']) {
            template.push(&rest[..at]);
            rest = &rest[at..];
            if let Some(brace) = ["{{", "}}"].into_iter().find(|pair| rest.starts_with(pair)) {
                template.push(&brace[..1]);
                rest = &rest[2..];
                continue;
            }
            let place = pattern.len() - rest.len();
            let Some(after) = rest.strip_prefix('{') else {
                return Err(refuse(format!(
                    "the `}}` at byte {place} closes nothing; write `}}}}` for a brace"
                )));
            };
            let name = match after.find(['{', '}']) {
                Some(end) if after[end..].starts_with('}') => &after[..end],
                _ => {
                    return Err(refuse(format!(
                        "the `{{` at byte {place} is not closed; write `{{{{` for a brace"
                    )));
                }
            };
            match name {
                "label" => {
                    labels += 1;
                    template.parts.push(Part::Label);
                }
                "domain" => {
                    domains += 1;
                    template.push(domain);
                }
                _ => return Err(refuse(format!("{{{name}}} is unknown; use {{domain}} and {{label}}"))),
            }
            rest = &after[name.len() + 1..];
        }
        template.push(rest);
        if labels == 0 {
            return Err(refuse("it lacks {label}, so it would control nothing".to_owned()));
        }
        match (domains > 0, domain.is_empty()) {
            (true, true) => Err(refuse("it has {domain}, but no domain was given".to_owned())),
            (false, false) => Err(refuse(format!("it does not say {{domain}}, so {domain:?} would be lost"))),
            _ => Ok(template),
        }
    }

    /// The control code of `label`. Braces in the label or the domain are plain text.
    pub fn render(&self, label: &str) -> String {
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Label => label,
        });
        parts.collect()
    }

    /// The text without the control codes that it starts with, of whichever label, and without white space before it.
    pub fn strip<'a>(&self, text: &'a str, labels: &Labels) -> &'a str {
        self.split(text, labels).1
    }

    /// The label of the control code that a text starts with, if any, and what follows it.
    ///
    /// Case and the kind of white space do not matter, since models vary both. A code that comes several times is taken off
    /// each time; the label is that of the last, which is the one the text was written under. Of labels that fit ("1" and
    /// "10") it is the longest, and it must end where a word ends.
    pub fn split<'a>(&self, text: &'a str, labels: &Labels) -> (Option<usize>, &'a str) {
        let mut rest = text.trim_start();
        let mut found = None;
        loop {
            let fitting = labels.names().iter().enumerate().filter_map(|(index, label)| {
                let code = self.render(label);
                let after = &rest[match_prefix(rest, &code)?..];
                let ends_a_word =
                    !code.ends_with(char::is_alphanumeric) || !after.starts_with(char::is_alphanumeric);
                ends_a_word.then_some((index, after))
            });
            let Some((index, after)) = fitting.min_by_key(|(_, after)| after.len()) else {
                return (found, rest);
            };
            found = Some(index);
            rest = after.trim_start();
        }
    }

    fn push(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }
}

/// Bytes of `text` that spell `code`, whatever their case and white space.
fn match_prefix(text: &str, code: &str) -> Option<usize> {
    let mut rest = text;
    for c in code.chars() {
        if c.is_whitespace() {
            let trimmed = rest.trim_start();
            if trimmed.len() == rest.len() {
                return None;
            }
            rest = trimmed;
        } else {
            let got = rest.chars().next()?;
            if got != c && !got.to_lowercase().eq(c.to_lowercase()) {
                return None;
            }
            rest = &rest[got.len_utf8()..];
        }
    }
    Some(text.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn template() -> Template {
        Template::new("Product type: {domain} | Review score: {label}", "health").unwrap()
    }

    #[test]
    fn renders_domain_and_label() {
        assert_eq!(template().render("4"), "Product type: health | Review score: 4");
        let braces = Template::new("{{{label}}} of {domain}", "{label}").unwrap();
        assert_eq!(braces.render("{domain}"), "{{domain}} of {label}");
    }

    #[test]
    fn wrong_templates_are_refused_when_they_are_made() {
        for (pattern, domain, why) in [
            ("score {label", "", "not closed"),
            ("score label}", "", "closes nothing"),
            ("score {{label}", "", "closes nothing"),
            ("score {la{label}}", "", "not closed"),
            ("score {score}", "", "unknown"),
            ("score {Label}", "", "unknown"),
            ("score {}", "", "unknown"),
            ("score {{label}}", "", "lacks"),
            ("", "", "lacks"),
            ("{domain}: {label}", "", "no domain"),
            ("score {label}", "health", "lost"),
            ("a\n{label}", "", "one line"),
            ("{domain} {label}", "a\nb", "one line"),
        ] {
            let error = Template::new(pattern, domain).unwrap_err().to_string();
            assert!(error.contains(why), "{pattern}: {error}");
        }
    }

    #[test]
    fn an_echoed_code_is_taken_off() {
        let labels = Labels::new(["1", "10", "4"]).unwrap();
        let template = template();
        for (text, label, rest) in [
            ("Product type: health | Review score: 4\nIt works.", Some(2), "It works."),
            ("product TYPE:\u{a0}health | review score: 10 It works.", Some(1), "It works."),
            (
                "Product type: health | Review score: 1\nProduct type: health | Review score: 4\nOk",
                Some(2),
                "Ok",
            ),
            ("Product type: health | Review score: 4", Some(2), ""),
            (" It works.", None, "It works."),
            ("Product type: books | Review score: 4\nOk", None, "Product type: books | Review score: 4\nOk"),
            (
                "Product type: health | Review score: 100 of",
                None,
                "Product type: health | Review score: 100 of",
            ),
        ] {
            assert_eq!(template.split(text, &labels), (label, rest), "{text}");
            assert_eq!(template.strip(text, &labels), rest);
        }
    }

    proptest! {
        #[test]
        fn split_undoes_render(label in "\\PC{1,12}", domain in "\\PC{1,12}", text in "[a-z{} ]{0,30}") {
            let (label, domain) = (single_line(&label), single_line(&domain));
            prop_assume!(!label.is_empty() && !domain.is_empty());
            let template = Template::new("About {domain}, rated {{{label}}}:", &domain).unwrap();
            let labels = Labels::new([label.clone()]).unwrap();
            let sample = format!("{}\n{text}", template.render(&label));
            prop_assert_eq!(template.split(&sample, &labels), (Some(0), text.trim_start()));
        }
    }
}
