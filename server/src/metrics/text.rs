//! Prometheus' text format, version 0.0.4.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Display;

use super::Histogram;

/// A text that grows by families of samples.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// The head of a family, which stands in front of its samples. `help` has one line and no backslash.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.0 += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0 += name;
        for (i, (label, value)) in labels.iter().enumerate() {
            self.0 += &format!("{}{label}=\"{}\"", if i == 0 { '{' } else { ',' }, escaped(value));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        self.0 += &format!("{end} {value}\n");
    }

    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let (snapshot, bucket) = (histogram.snapshot(), format!("{name}_bucket"));
        for (bound, count) in snapshot.cumulative {
            self.sample(&bucket, &[("le", &bound.to_string())], count);
        }
        self.sample(&bucket, &[("le", "+Inf")], snapshot.count);
        self.sample(&format!("{name}_sum"), &[], snapshot.sum);
        self.sample(&format!("{name}_count"), &[], snapshot.count);
    }

    pub fn finish(self) -> String {
        self.0
    }
}

/// A label's value as it stands between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn families_have_a_head_and_their_samples() {
        let mut text = Text::default();
        text.family("a_total", "counter", "All.");
        text.sample("a_total", &[("x", "1"), ("y", "a\"b\\c\nd")], 3);
        text.gauge("b", "One.", 0.5);
        let histogram = Histogram::new(&[0.5, 2.0]);
        histogram.observe(Duration::from_secs(1));
        histogram.observe(Duration::from_secs(3));
        text.histogram("c_seconds", "Times.", &histogram);
        let expected = "# HELP a_total All.\n# TYPE a_total counter\na_total{x=\"1\",y=\"a\\\"b\\\\c\\nd\"} 3\n\
            # HELP b One.\n# TYPE b gauge\nb 0.5\n\
            # HELP c_seconds Times.\n# TYPE c_seconds histogram\n\
            c_seconds_bucket{le=\"0.5\"} 0\nc_seconds_bucket{le=\"2\"} 1\nc_seconds_bucket{le=\"+Inf\"} 2\n\
            c_seconds_sum 4\nc_seconds_count 2\n";
        assert_eq!(text.finish(), expected);
    }
}
