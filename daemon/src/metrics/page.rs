//! Prometheus' text format, version 0.0.4 (prometheus.io, "Exposition formats").

use std::fmt::{Display, Write};

use super::{Counter, Gauge, Histogram};

/// A page of series. Names follow prometheus.io, "Metric and label naming": base units, `_total` for counters.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// The samples of one name.
pub struct Family<'p> {
    page: &'p mut Page,
    name: &'static str,
}

impl Page {
    /// A counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: &Counter) {
        self.counters(name, help).sample(&[], value.value());
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: &Gauge) {
        self.gauges(name, help).sample(&[], value.value());
    }

    /// A histogram without labels.
    pub fn histogram(&mut self, name: &'static str, help: &'static str, value: &Histogram) {
        self.histograms(name, help).distribution(&[], value);
    }

    /// Counters of one name.
    pub fn counters(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, help, "counter")
    }

    /// Gauges of one name.
    pub fn gauges(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, help, "gauge")
    }

    /// Histograms of one name.
    pub fn histograms(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, help, "histogram")
    }

    /// The page as text.
    pub fn into_text(self) -> String {
        self.text
    }

    /// `help` is text of the code, in which nothing has to be escaped.
    fn family(&mut self, name: &'static str, help: &'static str, kind: &str) -> Family<'_> {
        // Writing to a string does not fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { page: self, name }
    }
}

impl Family<'_> {
    /// A sample with these labels.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// A histogram with these labels.
    pub fn distribution(&mut self, labels: &[(&str, &str)], histogram: &Histogram) -> &mut Self {
        let buckets = histogram.cumulative();
        for (bound, count) in &buckets {
            self.line("_bucket", labels, Some(bound), count);
        }
        self.line("_sum", labels, None, histogram.sum());
        self.line("_count", labels, None, buckets.last().map_or(0, |(_, count)| *count));
        self
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>, value: impl Display) {
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            text.push(before);
            let _ = write!(text, "{name}=\"");
            for character in value.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    other => text.push(other),
                }
            }
            text.push('"');
            before = ',';
        }
        if before == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_family_has_its_head_once() {
        let mut page = Page::default();
        page.counters("a_total", "What a is.").sample(&[("x", "1")], 7).sample(&[("x", "2"), ("y", "")], 8);
        page.gauges("b", "What b is.").sample(&[], -0.5);
        let text = "# HELP a_total What a is.\n# TYPE a_total counter\na_total{x=\"1\"} 7\na_total{x=\"2\",y=\"\"} 8\n\
                    # HELP b What b is.\n# TYPE b gauge\nb -0.5\n";
        assert_eq!(page.into_text(), text);
    }

    #[test]
    fn no_label_ends_early() {
        let mut page = Page::default();
        page.gauges("a", "A.").sample(&[("x", "\" 1\na\\b…")], 1);
        assert!(page.into_text().ends_with("a{x=\"\\\" 1\\na\\\\b…\"} 1\n"));
    }

    #[test]
    fn a_histogram_ends_with_its_sum_and_count() {
        let histogram = Histogram::default();
        histogram.took(Duration::from_millis(3));
        let mut page = Page::default();
        page.histograms("a_seconds", "A.").distribution(&[("x", "y")], &histogram);
        let text = page.into_text();
        assert!(text.contains("a_seconds_bucket{x=\"y\",le=\"0.0025\"} 0\n"), "{text}");
        assert!(text.contains("a_seconds_bucket{x=\"y\",le=\"0.005\"} 1\n"), "{text}");
        let end = "a_seconds_bucket{x=\"y\",le=\"+Inf\"} 1\na_seconds_sum{x=\"y\"} 0.003\na_seconds_count{x=\"y\"} 1\n";
        assert!(text.ends_with(end), "{text}");
    }
}
