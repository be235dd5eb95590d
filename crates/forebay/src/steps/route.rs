//! `route`: the first one that matches takes the request for good.

use std::sync::Arc;

use forebay_config::{Arg, Call, Code, Directive, Type};
use forebay_route::{Pattern, RouteSet};

use super::patterns::{check_patterns, patterns};
use crate::control::build::Builder;
use crate::exchange::{Condition, Exchange, Flow, Pipeline, Step};
use crate::explain::{Notes, Told};

pub static DIRECTIVE: Directive = Directive::route(
    "route",
    "Takes the requests whose path matches one of the patterns, for good: if its pipeline does \
     not answer, the answer is 404, never a later route. Of several routes the first one that \
     matches counts. A pattern is always for the whole path, in a route within a route too.",
)
.args(&[Arg::required("PATTERN", Type::List(&Type::Pattern))])
.items("PIPELINE", Type::Pipeline)
.check(check_patterns)
.example(r#"route "/api/*" { limit { body = "1MB" }, respond(200, "api: $rest") }"#);

/// Routes that follow one another, as one step: which of them a path belongs to is found without
/// looking at each.
struct Routes {
    set: RouteSet,
    routes: Box<[Route]>,
}

struct Route {
    when: Option<Condition>,
    pipeline: Arc<Pipeline>,
    /// The number of its call.
    call: u32,
}

/// The step of these routes, in the order in which they stand.
pub fn build_all(calls: &[Arc<Call>], builder: &mut Builder<'_>) -> Option<Box<dyn Step>> {
    let patterns: Vec<Vec<Pattern>> = calls.iter().map(|call| patterns(call)).collect();
    let routes = calls.iter().map(|call| Route {
        when: builder.condition(&call.when),
        pipeline: builder.pipeline(&call.steps),
        call: call.id,
    });
    let routes: Box<[Route]> = routes.collect();
    match RouteSet::new(patterns) {
        Ok(set) => {
            report_dead(&set, calls, builder);
            Some(Box::new(Routes { set, routes }))
        }
        Err(error) => {
            let place = calls.first()?.place;
            builder
                .report
                .mistake(place, Code::Conflict, format!("route: {error}"), "");
            None
        }
    }
}

/// Reports routes none of whose paths is left by those above them.
fn report_dead(set: &RouteSet, calls: &[Arc<Call>], builder: &mut Builder<'_>) {
    // What is plain to see has been said already, by the check of the whole file.
    if builder.report.has_mistakes() {
        return;
    }
    let unreachable = set.unreachable(|route| calls[route].when.is_empty());
    for taken in unreachable.chunk_by(|a, b| a.route == b.route) {
        let (route, by) = (taken[0].route, taken[0].by);
        if taken.len() < set.patterns(route).len() {
            continue;
        }
        let first = |route: usize| set.patterns(route).next().map_or("", Pattern::as_str);
        let message = format!("route \"{}\" is never reached", first(route));
        let help = format!("route \"{}\" above takes its requests", first(by));
        builder
            .report
            .mistake(calls[route].place, Code::Unreachable, message, help);
    }
}

impl Step for Routes {
    fn name(&self) -> &'static str {
        DIRECTIVE.name
    }

    fn on_request(&self, exchange: &mut Exchange) -> Flow {
        let path = exchange.request.path();
        let holds = |route: &Route| route.when.as_ref().is_none_or(|when| when.holds(exchange));
        let mut candidates = self.set.candidates(path.as_bytes());
        let Some(found) = candidates.find(|candidate| holds(&self.routes[candidate.route])) else {
            return Flow::Next;
        };
        exchange
            .captures
            .note(self.set.pattern_of(&found), &found.captures, path);
        Flow::Enter(self.routes[found.route].pipeline.clone())
    }

    fn explain(&self, exchange: &mut Exchange, notes: &mut Notes<'_>) -> Told {
        let path = exchange.request.path().to_owned();
        let mut matched = None;
        for tried in self.set.explain(path.as_bytes()) {
            // Of a route's patterns the first that matches is the one.
            if matched == Some(tried.route) {
                continue;
            }
            let route = &self.routes[tried.route];
            match tried.result {
                Err(miss) => notes.route(route.call, tried.pattern, Err(miss)),
                Ok(found) => {
                    matched = Some(tried.route);
                    let when = notes.when(route.call, route.when.as_ref(), exchange, None);
                    let takes = when.as_ref().is_none_or(|when| when.holds);
                    notes.route(route.call, tried.pattern, Ok((&found, &path, when)));
                    if takes {
                        exchange.captures.note(tried.pattern, &found, &path);
                        return Told::Does(Flow::Enter(route.pipeline.clone()));
                    }
                }
            }
        }
        Told::Does(Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{Bench, mistakes};

    #[track_caller]
    fn check(bench: &Bench, target: &str, expected: &str) {
        assert_eq!(bench.get(target).run().text(), expected, "{target}");
    }

    #[test]
    fn the_first_that_matches_takes_the_request_for_good() {
        let bench = Bench::new(
            r#"site { "*",
                 route "/a/*" { route "/a/x" { respond(200, "inner") }, route "/a/z/*" { respond(200, "[$rest]") } },
                 set("v", "1"),
                 route { "/b", "/c/*" } { respond(200, "list $vars.v") },
                 route "/u/:id/*" { respond(200, "$params.id $rest") },
                 route "/m" { when = method "POST", respond(200, "post") },
                 route "/m" { respond(200, "other") },
                 respond(200, "none [$rest]") }"#,
        );
        check(&bench, "/a/x", "inner");
        assert_eq!(bench.get("/a/other").run().status(), 404);
        check(&bench, "/a/z/1/2", "[1/2]");
        check(&bench, "/b", "list 1");
        check(&bench, "/c/x", "list 1");
        check(&bench, "/u/7/e/f", "7 e/f");
        check(&bench, "/m", "other");
        assert_eq!(bench.request("POST", "/m").run().text(), "post");
        check(&bench, "/else/where", "none [else/where]");
    }

    #[test]
    fn steps_between_routes_keep_their_place() {
        let bench = Bench::new(
            r#"site { "*", route "/1" { respond(200, "[$vars.v]") }, set("v", "set"),
                 route "/2" { respond(200, "[$vars.v]") } }"#,
        );
        check(&bench, "/1", "[]");
        check(&bench, "/2", "[set]");
        let pipeline = bench.site("test").pipeline.clone();
        assert_eq!(pipeline.entries.len(), 3);
    }

    #[test]
    fn a_thousand_routes_are_one_step() {
        let bench = Bench::new(
            r#"local routes = {}
               for i = 1, 1000 do routes[i] = route("/r" .. i .. "/*") { respond(200, "r" .. i) } end
               site { "*", routes, respond(200, "none") }"#,
        );
        for i in [1, 500, 1000] {
            check(&bench, &format!("/r{i}/x"), &format!("r{i}"));
        }
        check(&bench, "/r1001", "none");
        assert_eq!(bench.site("test").pipeline.entries.len(), 2);
    }

    #[test]
    fn a_route_that_no_path_is_left_for_is_a_mistake() {
        let said = mistakes(
            r#"site { "*", route "/a/:x/*" { respond(200) }, route "/a/:y/c" { respond(200) } }"#,
        );
        assert!(
            said.contains("route \"/a/:y/c\" is never reached"),
            "{said}"
        );
    }

    #[test]
    fn routes_are_nested_only_so_deep() {
        let said = mistakes(
            r#"local inner = respond(200)
               for i = 1, 33 do inner = route("/*") { inner } end
               site { "*", inner }"#,
        );
        assert!(said.contains("more than 32 deep"), "{said}");
    }
}
