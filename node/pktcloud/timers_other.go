//go:build !linux

package main

func lateTimers() {}
