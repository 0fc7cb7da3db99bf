// Package services runs the services of a lease over any [container.Runtime]:
// which one waits for which, whether each is healthy, what is started again
// and when, and what is meant to end.
//
// Begin with a [Set] and [New]. The core is pure: [State.Step] takes what was
// seen and says what to do. A [Manager] is its running half: it keeps each
// step durable before it acts, so that it may be killed at any time. The
// containers go on meanwhile, and the next Manager over the same store takes
// them up where they are. It makes no network between services, pulls no image
// by itself, and knows nothing of money. The rules are those of
// spec/services.md.
package services
