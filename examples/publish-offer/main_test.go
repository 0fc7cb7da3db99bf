package main

func Example() {
	main()
	// Output: <nil> <nil> 0.375 PKT an hour
}
