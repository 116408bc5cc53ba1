//! Words, folding and white space: the one tokenisation that all steps share.

use unicode_normalization::UnicodeNormalization as _;

/// Words of a text, in order: compatibility-composed (NFKC), case-folded, then cut into runs of Unicode alphanumerics.
///
/// On ASCII this is `rouge_score`'s tokenisation without its stemmer: "Don't" gives `don`, `t`. It differs beyond ASCII,
/// where `rouge_score` cuts at every accented letter. A character of a script written without spaces (Han, kana, Thai,
/// Lao, Khmer, Burmese) is a word of its own, so that counts and runs mean something there too.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in folded_chars(text) {
        if c.is_alphanumeric() && !stands_alone(c) {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if stands_alone(c) && c.is_alphanumeric() {
            words.push(c.to_string());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The text as it is compared: NFKC, without case, every run of white space one space, none at the ends.
pub fn fold(text: &str) -> String {
    let folded: String = folded_chars(text).collect();
    single_line(&folded)
}

/// The text on one line: every run of white space, control and zero-width characters is one space, none at the ends.
pub fn single_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for part in text.split(is_blank).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(part);
    }
    line
}

/// Whether a character shows nothing: white space, controls, zero-width marks. The joiner U+200D is kept, emoji and
/// Indic scripts need it.
pub(crate) fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// Upper case first: it joins what lower case alone keeps apart ("ß" and "SS", the two small sigmas).
fn folded_chars(text: &str) -> impl Iterator<Item = char> + '_ {
    text.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase)
}

fn stands_alone(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}' // Thai, Lao
        | '\u{1000}'..='\u{109f}' // Burmese
        | '\u{1780}'..='\u{17ff}' // Khmer
        | '\u{3040}'..='\u{30ff}' // kana
        | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3134f}' // Han
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_and_digits_without_case() {
        assert_eq!(words("Don't PANIC, 42!"), ["don", "t", "panic", "42"]);
        assert_eq!(words("  ... "), Vec::<String>::new());
    }

    #[test]
    fn one_spelling_for_composed_and_decomposed_accents() {
        assert_eq!(words("cafe\u{301} ﬁne"), words("CAFÉ fine"));
    }

    #[test]
    fn case_is_folded_beyond_ascii() {
        assert_eq!(fold("STRASSE ΟΔΟΣ"), fold("straße οδος"));
    }

    #[test]
    fn characters_of_scripts_without_spaces_are_words() {
        assert_eq!(words("很好的 product"), ["很", "好", "的", "product"]);
    }

    #[test]
    fn invisible_characters_separate_like_spaces() {
        assert_eq!(single_line("\u{feff}a\u{a0}\u{3000}b\u{200b}\r\n c\u{0}"), "a b c");
    }
}
