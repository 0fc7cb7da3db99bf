// Package crash marks the places where a node may die: around each journal
// write and each message sent. A build with the tag crashpoints numbers them,
// so that a test can kill the process at every one in turn; an ordinary build
// contains nothing of it.
package crash
