//! Texts by the language model, without and with the adapter.

use super::markup::Escaped;
use crate::report::TextSample;

pub(super) fn write(out: &mut String, samples: &[TextSample]) {
    if samples.is_empty() {
        return;
    }
    put!(
        out,
        "<div class=\"scroll\"><table class=\"samples\">\n<caption>Always the likeliest next token, after prompts from the \
         test records. The models know nothing of the record's own answer.</caption>\n<thead><tr>"
    );
    for head in ["Prompt", "Without the adapter", "With the adapter", "The record's own answer"] {
        put!(out, "<th scope=\"col\">{}</th>", Escaped(head));
    }
    put!(out, "</tr></thead>\n<tbody>\n");
    for sample in samples {
        put!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            Escaped(&sample.prompt),
            Escaped(&sample.before),
            Escaped(&sample.after),
            Escaped(&sample.reference)
        );
    }
    put!(out, "</tbody>\n</table></div>\n");
}
