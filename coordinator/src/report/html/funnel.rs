//! What became of texts on the way, step by step.

use std::collections::BTreeMap;

use sheaf_text::Funnel;

use super::markup::Escaped;
use super::quantity::count;

/// A table of the steps of sets of texts, named where they have names; nothing where there is no step.
pub(super) fn write(out: &mut String, caption: &str, sets: &[(Option<&str>, &Funnel)]) {
    if sets.iter().all(|(_, funnel)| funnel.steps.is_empty()) {
        return;
    }
    let named = sets.iter().any(|(set, _)| set.is_some());
    put!(
        out,
        "<div class=\"scroll\"><table class=\"funnel\">\n<caption>{}</caption>\n<thead><tr>{}<th scope=\"col\">Step</th>\
         <th scope=\"col\" class=\"num\">Given</th><th scope=\"col\" class=\"num\">Kept</th>\
         <th scope=\"col\">Dropped</th></tr></thead>\n<tbody>\n",
        Escaped(caption),
        if named { "<th scope=\"col\">Set</th>" } else { "" }
    );
    for (set, funnel) in sets {
        for step in &funnel.steps {
            put!(out, "<tr>");
            if named {
                put!(
                    out,
                    "<th scope=\"row\">{}</th><td>{}</td>",
                    Escaped(set.unwrap_or_default()),
                    Escaped(&step.name)
                );
            } else {
                put!(out, "<th scope=\"row\">{}</th>", Escaped(&step.name));
            }
            put!(
                out,
                "<td class=\"num\">{}</td><td class=\"num\">{}</td><td>{}</td></tr>\n",
                count(step.given as u64),
                count(step.kept() as u64),
                Escaped(&reasons(&step.dropped))
            );
        }
    }
    put!(out, "</tbody>\n</table></div>\n");
}

/// How many for each reason: "duplicate: 3; too short: 1".
pub(super) fn reasons(counts: &BTreeMap<String, usize>) -> String {
    let reason = |(reason, n): (&String, &usize)| format!("{reason}: {}", count(*n as u64));
    counts.iter().map(reason).collect::<Vec<_>>().join("; ")
}
