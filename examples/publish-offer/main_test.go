package main

func Example() {
	main()
	// Output: The offer is signed by its provider; half a core and 1 GiB cost 0.375 PKT an hour under it.
}
