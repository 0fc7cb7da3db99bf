// Package kernelnet is the fast path of a group's network: a second way out of its
// router, on which the kernel forwards and translates what the policy allows, and
// counts it. Whatever it does not choose for that way goes to the group's
// [netstack.Stack], which judges it, answers names, refuses and publishes ports;
// so a rule that is missing here makes a connection slow, not free.
//
// [Compile] says what one container may send that way. [Open] makes the router's
// half and the machine's; both are gone when the process that opened them is.
// [Check] says whether the machine can. The rules are those of spec/container.md.
package kernelnet
